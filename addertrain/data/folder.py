"""Pictures in files: a folder for each class (torchvision's ImageFolder), or a list of paths with labels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from addertrain.data.errors import DataError
from addertrain.data.source import check_labels

_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """Files below a folder, each with the number of its class."""

    root: Path
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    description: str

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, sample: int) -> str:
        """The file's path below the folder."""
        return self.paths[sample]

    def picture(self, sample: int) -> NDArray[np.uint8]:
        """The picture in RGB, (H, W, 3); raises a DataError that names the file."""
        # Here: torchvision takes seconds to import, and a list of files does not need it.
        from addertrain.data.decode import read_picture

        return read_picture(self.root / self.paths[sample])

    def some(self, samples: Sequence[int]) -> "PictureFiles":
        """These files alone."""
        chosen = tuple(self.paths[sample] for sample in samples)
        return PictureFiles(self.root, chosen, self.labels[list(samples)], self.classes, self.description)


def folder_of_classes(root: Path) -> PictureFiles:
    """Every picture below ROOT/CLASS/, numbered as torchvision's ImageFolder does.

    Raises:
        DataError: no folder, no classes in it, or a class without pictures.
    """
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder with a folder of pictures for each class, got none")
    classes = tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir()))
    if not classes:
        raise DataError(f"{root}: expected a folder of pictures for each class in it, got none")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _pictures_below(root, name)
        if not found:
            raise DataError(
                f"{root / name}: expected pictures ({', '.join(_SUFFIXES)}), got none; remove the folder"
            )
        paths += found
        labels += [label] * len(found)
    return PictureFiles(root, tuple(paths), np.array(labels, dtype=np.int64), classes, f"folder {root}")


def _pictures_below(root: Path, name: str) -> list[str]:
    return [
        os.path.relpath(os.path.join(folder, file), root)
        for folder, _, files in sorted(os.walk(root / name, followlinks=True))
        for file in sorted(files)
        if file.lower().endswith(_SUFFIXES)
    ]


def list_of_files(path: Path) -> PictureFiles:
    """Lines of `path<TAB>label`; paths are relative to the list, labels all numbers or all names.

    Raises:
        DataError: a line of another form, a number below 0.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a list 'path<TAB>label' in UTF-8, got: {error}") from None
    rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, start=1):
        if len(row) != 2 or not all(row):
            raise DataError(
                f"{path}: expected 'path<TAB>label' on line {number}, got '{lines[number - 1]:.80}'"
            )
    if not rows:
        raise DataError(f"{path}: expected lines 'path<TAB>label', got none")
    names = [label for _, label in rows]
    if all(name.lstrip("-").isdigit() for name in names):
        labels = np.array([int(name) for name in names], dtype=np.int64)
        classes = tuple(str(number) for number in range(max(1, int(labels.max()) + 1)))
    else:
        classes = tuple(sorted(set(names)))
        numbers = {name: number for number, name in enumerate(classes)}
        labels = np.array([numbers[name] for name in names], dtype=np.int64)
    check_labels(labels, len(classes), where=path)
    return PictureFiles(path.parent, tuple(file for file, _ in rows), labels, classes, f"list {path}")
