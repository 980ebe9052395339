"""Where pictures come from before they are packed: files in folders, files in a list, a torchvision set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from addertrain.data.decoding.modes import Decoded, Rendering
from addertrain.errors import DataError


class LabelledPictures(Protocol):
    """Labelled pictures of any size, by number."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of every picture, (N,)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""

    def __len__(self) -> int:
        """Pictures in all."""

    def name(self, sample: int) -> str:
        """What an error calls a picture."""

    def picture(self, sample: int) -> Decoded:
        """The picture in RGB.

        Raises:
            PictureError: it cannot be read.
        """


class PictureSource(LabelledPictures, Protocol):
    """Pictures that can be packed; what a process is given of them can be pickled."""

    @property
    def description(self) -> str:
        """What it is, for the record."""

    @property
    def rendering(self) -> Rendering:
        """How its pictures become RGB bytes."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know of it before it is packed: what was passed over, what looks unmeant."""

    def size(self, sample: int) -> tuple[int, int] | None:
        """The picture's sides from its head alone, in any order; None where that takes decoding it."""

    def encoded(self, sample: int) -> bytes | None:
        """The bytes of the picture's own file; None where it has none."""

    def some(self, samples: Sequence[int]) -> Self:
        """A source of these pictures alone, small enough to be sent to another process."""


def check_labels(labels: NDArray[np.int64], num_classes: int, *, where: str | Path) -> None:
    """Raises a DataError for the first label outside 0 .. num_classes - 1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise DataError(
            f"{where}: expected labels of 0 to {num_classes - 1}, got {labels[wrong[0]]} for picture "
            f"{wrong[0]} (and {len(wrong) - 1} more such); mend them where they come from"
        )
