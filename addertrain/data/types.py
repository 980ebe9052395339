"""What data sets and loaders hand over: images in memory, pictures that are read as needed, batches."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from addertrain.data.crops import Crops


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """Images as uint8 (N, C, H, W), channels-last in memory, and their labels as int64 (N,)."""

    images_nchw: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class PictureReader(Protocol):
    """Pictures that are cut and resized while they are read; several threads and loaders share one."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of every picture, (N,)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""

    def __len__(self) -> int:
        """Pictures in all."""

    def check(self) -> None:
        """Raises a DataError where the pictures have gone since they were opened; called for every batch."""

    def read(self, samples: NDArray[np.int64], crops: Crops, images_nhwc: NDArray[np.uint8]) -> None:
        """Fills one image (H, W, 3) for each sample; a DataError names a picture that cannot be read."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set: what to train on, what to test on; mean and std per channel, of pixels scaled to 0 .. 1."""

    train: ImageArrays | PictureReader
    test: ImageArrays | PictureReader
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int


class Batch(NamedTuple):
    """This rank's part of a global batch.

    images: uint8 (N, C, H, W), channels-last in memory; labels: int64 (N,), or float (N, classes) where
    images were mixed; samples: int64 (N,), which images of the data set these are.
    """

    images: Tensor
    labels: Tensor
    samples: Tensor
