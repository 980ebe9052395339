"""Random crops and flips of training images, as a pure function of the images and of (seed, epoch,
sample).
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from addertrain.data.randomness import Stream, draw_integers

Augmentation = Literal["none", "flip", "crop_flip"]
PADDING = 4  # zero pixels on each side before the crop: the usual choice for 32x32 images


def augment(
    images_nhwc: Tensor, samples: NDArray[np.int64], augmentation: Augmentation, *, seed: int, epoch: int
) -> Tensor:
    """The augmented images, a new uint8 tensor of the same shape; "none" returns its argument."""
    if augmentation == "none":
        return images_nhwc
    rows = columns = np.full(len(samples), PADDING)  # the image itself
    if augmentation == "crop_flip":
        rows = draw_integers(seed, epoch, samples, Stream.CROP_ROW, bound=2 * PADDING + 1)
        columns = draw_integers(seed, epoch, samples, Stream.CROP_COLUMN, bound=2 * PADDING + 1)
    is_flipped = draw_integers(seed, epoch, samples, Stream.FLIP, bound=2).astype(bool)
    return crop_flip(images_nhwc, rows, columns, is_flipped)


def crop_flip(
    images_nhwc: Tensor, rows: NDArray[np.int64], columns: NDArray[np.int64], is_flipped: NDArray[np.bool_]
) -> Tensor:
    """Pads with zeros, crops to the original size from (row, column), and flips images horizontally.

    Shapes: images (N, H, W, C) uint8; rows, columns in 0 .. 2 * PADDING, is_flipped: (N,).
    """
    N, H, W, C = images_nhwc.shape
    padded = np.zeros((N, H + 2 * PADDING, W + 2 * PADDING, C), dtype=np.uint8)
    padded[:, PADDING : PADDING + H, PADDING : PADDING + W] = images_nhwc.numpy()
    # A view with two more axes, the crop's corner: choosing one for each image copies H runs of W * C bytes.
    by_image, by_row, by_column, by_channel = padded.strides
    corners = np.lib.stride_tricks.as_strided(
        padded,
        shape=(N, 2 * PADDING + 1, 2 * PADDING + 1, H, W * C),
        strides=(by_image, by_row, by_column, by_row, by_channel),
        writeable=False,
    )
    cropped = corners[np.arange(N), rows, columns].reshape(N, H, W, C)
    # torch mirrors channels-last bytes with vector instructions, seven times as fast as numpy.
    cropped[is_flipped] = (
        torch.from_numpy(cropped[is_flipped]).permute(0, 3, 1, 2).flip(3).permute(0, 2, 3, 1).numpy()
    )
    return torch.from_numpy(cropped)


def crop_flip_one(image_hwc: Tensor, row: int, column: int, is_flipped: bool) -> Tensor:
    """One image (H, W, C), padded with zeros, cropped from (row, column), and flipped if asked.

    The simple version of `crop_flip`, and the oracle of its tests.
    """
    H, W, C = image_hwc.shape
    padded = torch.zeros(H + 2 * PADDING, W + 2 * PADDING, C, dtype=image_hwc.dtype)
    padded[PADDING : PADDING + H, PADDING : PADDING + W] = image_hwc
    cropped = padded[row : row + H, column : column + W]
    return cropped.flip(1) if is_flipped else cropped
