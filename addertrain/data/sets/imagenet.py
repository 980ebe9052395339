"""ImageNet, Imagenette, or any folder of images with train/CLASS/ and val/CLASS/."""

import warnings
from pathlib import Path

from addertrain.data.sources.folder import folder_of_classes
from addertrain.data.sources.picture_classes import with_classes
from addertrain.data.types import ImageData, PictureReader
from addertrain.errors import DataError
from addertrain.recipe import DataRecipe
from addertrain.recipe.data_sets import DATA_SETS, IMAGENET_NORMALISATION


def load_picture_data(settings: DataRecipe, root: Path) -> ImageData:
    """Opens ROOT/imagenet/, ROOT/imagenette/, or for `folder` ROOT itself, with the reader that data.loader
    names.

    Raises:
        DataError: files are missing or damaged, or train and val do not have the same classes.
    """
    folder = root / DATA_SETS[settings.name].folders[0]
    train, test = (_open(folder / part, settings.loader) for part in ("train", "val"))
    test = with_classes(test, train.classes, where=folder)
    facts = DATA_SETS[settings.name].facts
    if facts is not None and len(train.classes) != facts.num_classes:
        raise DataError(
            f"{folder}: expected {facts.num_classes} classes of {settings.name}, got {len(train.classes)}; "
            "for other classes use data.name: folder"
        )
    return ImageData(train=train, test=test, num_classes=len(train.classes), **IMAGENET_NORMALISATION)


def _open(part: Path, loader: str) -> PictureReader:
    # Here: either takes a second to import, and only one is needed.
    if loader == "torchvision":
        from addertrain.data.loaders.torchvision_reader import TorchvisionReader

        files = folder_of_classes(part, allow_empty=part.name == "val")
        for line in files.remarks:
            warnings.warn(f"{part}: {line}", stacklevel=3)
        return TorchvisionReader(files)
    from addertrain.data.beton.reader import BetonReader

    return BetonReader.open(part.with_name(f"{part.name}.beton"))
