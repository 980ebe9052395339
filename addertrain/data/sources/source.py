"""The protocol of sources of images: files in folders, files in a list, a torchvision data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from addertrain.data.decoding.modes import Decoded, Rendering
from addertrain.errors import DataError


class LabelledPictures(Protocol):
    """Labelled images of any size, by number."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of every image, (N,)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""

    def __len__(self) -> int:
        """The number of images."""

    def name(self, sample: int) -> str:
        """The name of an image in errors."""

    def picture(self, sample: int) -> Decoded:
        """The image in RGB.

        Raises:
            PictureError: it cannot be read.
        """


class PictureSource(LabelledPictures, Protocol):
    """Images that can be packed; a part of them can be pickled and sent to another process."""

    @property
    def description(self) -> str:
        """A description of the source, for the side file."""

    @property
    def rendering(self) -> Rendering:
        """How its images are converted to RGB bytes."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know before packing: what was skipped, and what looks like a mistake."""

    def size(self, sample: int) -> tuple[int, int] | None:
        """The image's width and height from its header, in any order; None if it would have to be decoded."""

    def encoded(self, sample: int) -> bytes | None:
        """The bytes of the image's own file; None if it has none."""

    def some(self, samples: Sequence[int]) -> Self:
        """A source of only these images, small enough to be sent to another process."""


def check_labels(labels: NDArray[np.int64], num_classes: int, *, where: str | Path) -> None:
    """Raises a DataError for the first label outside 0 .. num_classes - 1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise DataError(
            f"{where}: expected labels from 0 to {num_classes - 1}, got {labels[wrong[0]]} for image "
            f"{wrong[0]} (and {len(wrong) - 1} more like this); correct them in the source"
        )
