"""Numbers the labels of a validation set that lacks some of the training set's classes."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from addertrain.data.crops import Crops
from addertrain.data.types import PictureReader
from addertrain.errors import DataError


class _Renumbered:
    """The same images, with labels numbered by a larger list of classes."""

    def __init__(self, reader: PictureReader, classes: tuple[str, ...]) -> None:
        number = {name: label for label, name in enumerate(classes)}
        self._reader, self.classes = reader, classes
        # A class of no pictures may be unknown to the other part; its number is never used.
        numbers: NDArray[np.int64] = np.array([number.get(name, 0) for name in reader.classes])
        self.labels: NDArray[np.int64] = numbers[reader.labels]

    def __len__(self) -> int:
        return len(self._reader)

    def check(self) -> None:
        self._reader.check()

    def read(self, samples: NDArray[np.int64], crops: Crops, images_nhwc: NDArray[np.uint8]) -> None:
        self._reader.read(samples, crops, images_nhwc)


def with_classes(reader: PictureReader, classes: tuple[str, ...], *, where: Path) -> PictureReader:
    """The reader with its labels numbered by `classes`, which may contain more classes than its own.

    Raises:
        DataError: it has images of other classes, or the same classes in another order.
    """
    if reader.classes == classes:
        return reader
    in_use = {reader.classes[label] for label in np.unique(reader.labels).tolist()}
    if other := sorted(in_use - set(classes)):
        # In ASCII: names that differ by how accents are composed look alike.
        names = ", ".join(name if name.isascii() else ascii(name) for name in other[:3])
        raise DataError(
            f"{where}: expected the classes of train in val, got {len(other)} others ({names}), with "
            f"{len(classes)} classes in train; give both the same class folders"
        )
    return _Renumbered(reader, classes)
