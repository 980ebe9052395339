"""Every data set by its name: its sizes and statistics, its folders, and the function that opens it.

No other place lists them. The list is part of the recipes because their checks and help need the names and
import no other part; the functions are named as text, like your own.
"""

from dataclasses import dataclass

_OPENED_BY = "addertrain.data.sets"


@dataclass(frozen=True)
class Facts:
    """Sizes, and mean and std per channel of the training images, of pixels scaled to 0 .. 1."""

    num_train: int
    num_test: int
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        opens: the function, as package.module:function, that takes the recipe's section `data` and the
            folder of the data sets, and returns an `ImageData`.
        facts: None if the images have to be read first.
        folders: below the folder of the data sets, any one of which holds it; "": that folder itself.
        loaders: the values of data.loader that read it.
        needs_root: whether it is read from the folder of the data sets.
    """

    opens: str
    facts: Facts | None = None
    folders: tuple[str, ...] = ()
    loaders: tuple[str, ...] = ("memory",)
    needs_root: bool = True

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The values of data.augmentation that it takes."""
        return ("none", "crop_flip") if "memory" in self.loaders else ("none", "resized_crop_flip")


# CIFAR: of CIFAR-10, used for both; std is an image's on average, as in the authors' code, not all pixels'.
# MNIST: before resizing; digits: after it. ImageNet: as every published network uses them.
_CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
IMAGENET_NORMALISATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_PICTURES = ("ffcv", "torchvision")  # of any size, which are never in memory
_OPENS_PICTURES = f"{_OPENED_BY}.imagenet:load_picture_data"

DATA_SETS: dict[str, DataSet] = {
    "digits": DataSet(
        f"{_OPENED_BY}.digits:load_digits_data",
        Facts(1437, 360, 10, mean=(0.3048,), std=(0.3233,)),
        needs_root=False,
    ),
    "mnist": DataSet(
        f"{_OPENED_BY}.mnist:load_mnist_data",
        Facts(60_000, 10_000, 10, mean=(0.1307,), std=(0.3081,)),
        folders=("MNIST/raw",),
    ),
    "cifar10": DataSet(
        f"{_OPENED_BY}.cifar:load_cifar_data",
        Facts(50_000, 10_000, 10, **_CIFAR),
        folders=("cifar-10-batches-py", "cifar-10-batches-bin"),
    ),
    "cifar100": DataSet(
        f"{_OPENED_BY}.cifar:load_cifar_data",
        Facts(50_000, 10_000, 100, **_CIFAR),
        folders=("cifar-100-python", "cifar-100-binary"),
    ),
    "imagenet": DataSet(
        _OPENS_PICTURES,
        Facts(1_281_167, 50_000, 1000, **IMAGENET_NORMALISATION),
        folders=("imagenet",),
        loaders=_PICTURES,
    ),
    "imagenette": DataSet(
        _OPENS_PICTURES,
        Facts(9469, 3925, 10, **IMAGENET_NORMALISATION),
        folders=("imagenette",),
        loaders=_PICTURES,
    ),
    "folder": DataSet(_OPENS_PICTURES, folders=("",), loaders=_PICTURES),
}
"""By data.name; a name with a colon is a function of your own."""


def facts_of(name: str) -> Facts:
    """What is known of one of our data sets with fixed images."""
    facts = DATA_SETS[name].facts
    assert facts is not None, name
    return facts
