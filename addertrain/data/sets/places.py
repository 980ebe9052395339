"""Where the files of a data set have to be, found out without reading or downloading any."""

from dataclasses import dataclass
from pathlib import Path

from addertrain.data.sets.registry import data_root
from addertrain.errors import DataError
from addertrain.recipe import DataRecipe

_FOLDERS = {
    "mnist": ["MNIST/raw"],
    "cifar10": ["cifar-10-batches-py", "cifar-10-batches-bin"],
    "cifar100": ["cifar-100-python", "cifar-100-binary"],
}


@dataclass(frozen=True)
class Place:
    """A file or folder: where, and whether it is there."""

    path: Path
    is_there: bool


def data_places(settings: DataRecipe) -> list[Place]:
    """What the recipe's loader will open; empty where the data set comes with a package.

    A named root that is not there gives one place that is missing.
    """
    try:
        root = data_root(settings)
    except DataError:
        return [Place(Path(settings.root or "$ADDERTRAIN_DATA"), is_there=False)]
    if settings.name == "digits":
        return []
    if settings.name in _FOLDERS:
        folders = [root / folder for folder in _FOLDERS[settings.name]]
        return [Place(next((folder for folder in folders if folder.is_dir()), folders[0]), _any(folders))]
    folder = root if settings.name == "folder" else root / settings.name
    suffix = ".beton" if settings.loader == "ffcv" else ""
    return [Place(path, path.exists()) for path in (folder / f"{part}{suffix}" for part in ("train", "val"))]


def _any(folders: list[Path]) -> bool:
    return any(folder.is_dir() for folder in folders)
