"""What is known of a data set before it is read."""

from dataclasses import dataclass

from addertrain.recipe import DataRecipe

_MEMORY_IMAGE_SIZE = 32  # of every data set that loader: memory holds


@dataclass(frozen=True)
class Facts:
    """Sizes, and mean and std per channel of the training images, of pixels scaled to 0 .. 1."""

    num_train: int
    num_test: int
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


# CIFAR: of CIFAR-10, used for both; std is an image's on average, as in the authors' code, not all pixels'.
# MNIST: before resizing; digits: after it. ImageNet: as every published network uses them.
_CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

FACTS: dict[str, Facts] = {
    "digits": Facts(1437, 360, 10, mean=(0.3048,), std=(0.3233,)),
    "mnist": Facts(60_000, 10_000, 10, mean=(0.1307,), std=(0.3081,)),
    "cifar10": Facts(50_000, 10_000, 10, **_CIFAR),
    "cifar100": Facts(50_000, 10_000, 100, **_CIFAR),
    "imagenet": Facts(1_281_167, 50_000, 1000, **_IMAGENET),
    "imagenette": Facts(9469, 3925, 10, **_IMAGENET),
}
"""By data.name; a folder of pictures has to be read."""


def image_shape(settings: DataRecipe) -> tuple[int, int, int]:
    """(C, H, W) of the images that the network of a recipe trains on in the end."""
    size = _MEMORY_IMAGE_SIZE if settings.loader == "memory" else settings.image_size
    channels = len(FACTS[settings.name].mean) if settings.name in FACTS else 3
    return channels, size, size
