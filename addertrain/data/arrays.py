"""A data set: arrays in memory, or pictures that are decoded as they are needed."""

from dataclasses import dataclass

from torch import Tensor

from addertrain.data.pictures import PictureReader


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """Images as uint8 (N, C, H, W), channels-last in memory, and their labels as int64 (N,)."""

    images_nchw: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set: what to train on, what to test on; mean and std per channel, of pixels scaled to 0 .. 1."""

    train: ImageArrays | PictureReader
    test: ImageArrays | PictureReader
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
