"""Opens the data set that a recipe names, and finds its files; `recipe.data_sets` lists the known ones."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from addertrain.data.sets.own import DATA_GIVEN, checked_data
from addertrain.data.types import ImageArrays, ImageData
from addertrain.errors import DataError
from addertrain.own_code import OwnFunction, load_function
from addertrain.recipe import DataRecipe
from addertrain.recipe.data_sets import DATA_SETS, Facts

ROOT_VARIABLE = "ADDERTRAIN_DATA"
_DEFAULT_ROOT = Path("data")
_MEMORY_IMAGE_SIZE = 32  # of every data set of ours that loader: memory holds


@dataclass(frozen=True)
class Place:
    """A file or folder, and whether it exists."""

    path: Path
    is_there: bool


def load_data(settings: DataRecipe) -> ImageData:
    """Opens the recipe's data set, small ones in memory; only downloads write anything.

    Raises:
        DataError: the data is missing or damaged.
        RunError, RecipeError: a function of your own cannot be used.
    """
    known = DATA_SETS.get(settings.name)
    if known is None:
        function = own_data(settings)
        return checked_data(function(settings.args, root=data_root(settings)), settings)
    # The module is imported here: torchvision and scikit-learn take seconds, and most runs need neither.
    opens = load_function(known.opens)
    return cast(ImageData, opens(settings, data_root(settings) if known.needs_root else _DEFAULT_ROOT))


def own_data(settings: DataRecipe) -> OwnFunction:
    """Your own function that `settings.name` names, with its arguments checked.

    Raises:
        RunError, RecipeError: there is no such function, or its arguments do not fit.
    """
    function = OwnFunction.named("data.name", settings.name, given=DATA_GIVEN)
    function.check(settings.args)
    return function


def facts_before_reading(settings: DataRecipe) -> Facts | None:
    """What is known of the data set before it is read; None if it has to be read."""
    known = DATA_SETS.get(settings.name)
    return None if known is None else known.facts


def image_shape(settings: DataRecipe, data: ImageData | None = None) -> tuple[int, int, int]:
    """(C, H, W) of the images on which the network of a recipe trains in the last epoch.

    Args:
        data: the data, if nothing is known before it is read.
    """
    if data is not None and isinstance(data.train, ImageArrays):
        C, H, W = data.train.images_nchw.shape[1:]
        return C, H, W
    size = _MEMORY_IMAGE_SIZE if settings.loader == "memory" else settings.image_size
    facts = facts_before_reading(settings)
    return len(facts.mean) if facts else 3, size, size


def data_root(settings: DataRecipe) -> Path:
    """The recipe's folder, or $ADDERTRAIN_DATA, or ./data, which may not exist yet.

    Raises:
        DataError: a named folder does not exist (a download must not go to a misspelt one).
    """
    named = settings.root or os.environ.get(ROOT_VARIABLE)
    if not named:
        return _DEFAULT_ROOT
    root = Path(named).expanduser()
    if not root.is_dir():
        by = "data.root" if settings.root else ROOT_VARIABLE
        raise DataError(
            f"{settings.name}: expected a folder {root} (from {by}), got none; create it, or name another "
            f"one with --data.root or {ROOT_VARIABLE}"
        )
    return root


def data_places(settings: DataRecipe) -> list[Place]:
    """The files that the recipe's loader will open; nothing is read or downloaded.

    Empty if the data set comes with a package or from your own function. A named root that does not exist is
    returned as a missing place.
    """
    try:
        root = data_root(settings)
    except DataError:
        return [Place(Path(settings.root or "$ADDERTRAIN_DATA"), is_there=False)]
    known = DATA_SETS.get(settings.name)
    if known is None or not known.needs_root:
        return []
    folders = [root / folder for folder in known.folders]
    if "memory" in known.loaders:
        there = [folder for folder in folders if folder.is_dir()]
        return [Place((there or folders)[0], is_there=bool(there))]
    suffix = ".beton" if settings.loader == "ffcv" else ""
    paths = [folders[0] / f"{part}{suffix}" for part in ("train", "val")]
    return [Place(path, path.exists()) for path in paths]
