"""The types that data sets and loaders deliver: images in memory, images that are read as needed, batches."""

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
    """Images that are cropped and resized while they are read; several threads and loaders share a reader."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of every image, (N,)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""

    def __len__(self) -> int:
        """The number of images."""

    def check(self) -> None:
        """Raises a DataError if the images have changed since they were opened; called for every batch."""

    def read(self, samples: NDArray[np.int64], crops: Crops, images_nhwc: NDArray[np.uint8]) -> None:
        """Fills one image (H, W, 3) for each sample; a DataError names an image that cannot be read."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set: training and test images, and mean and std per channel of pixels scaled to 0 .. 1."""

    train: ImageArrays | PictureReader
    test: ImageArrays | PictureReader
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int


class Batch(NamedTuple):
    """This rank's share of a global batch.

    images: uint8 (N, C, H, W), channels-last in memory; labels: int64 (N,), or float (N, classes) if images
    were mixed; samples: int64 (N,), the numbers of the images in the data set.
    """

    images: Tensor
    labels: Tensor
    samples: Tensor
