"""Every data set by its name, and where they lie."""

import os
from pathlib import Path

from addertrain.data.sets.cifar import load_cifar_data
from addertrain.data.sets.digits import load_digits_data
from addertrain.data.sets.imagenet import load_picture_data
from addertrain.data.types import ImageData
from addertrain.errors import DataError
from addertrain.recipe import DataRecipe

ROOT_VARIABLE = "ADDERTRAIN_DATA"
_DEFAULT_ROOT = Path("data")


def load_data(settings: DataRecipe) -> ImageData:
    """Opens the recipe's data set, small ones in memory; nothing but a download is ever written.

    Raises:
        DataError: data that is missing or damaged.
    """
    if settings.name == "digits":
        return load_digits_data()
    if settings.name in ("imagenet", "imagenette", "folder"):
        return load_picture_data(settings, data_root(settings))
    if settings.name in ("cifar10", "cifar100"):
        return load_cifar_data(settings.name, data_root(settings))
    # Here and nowhere else: torchvision takes seconds to import, and the digits do without it.
    from addertrain.data.sets.mnist import load_mnist_data

    return load_mnist_data(data_root(settings))


def data_root(settings: DataRecipe) -> Path:
    """The recipe's folder, else $ADDERTRAIN_DATA, else ./data, which may still have to be made.

    Raises:
        DataError: a named folder that is not there (a download must not end up in a misspelt one).
    """
    named = settings.root or os.environ.get(ROOT_VARIABLE)
    if not named:
        return _DEFAULT_ROOT
    root = Path(named).expanduser()
    if not root.is_dir():
        by = "data.root" if settings.root else ROOT_VARIABLE
        raise DataError(
            f"{settings.name}: expected a folder {root} (from {by}), got none; "
            f"make it, or name another one with --data.root or {ROOT_VARIABLE}"
        )
    return root
