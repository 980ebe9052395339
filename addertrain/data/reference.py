"""The obvious form of each augmentation, image by image: the oracle of the tests."""

import torch
from torch import Tensor

from addertrain.data.augmentation import PADDING


def crop_flip_one(image_hwc: Tensor, row: int, column: int, is_flipped: bool) -> Tensor:
    """One image (H, W, C), padded with zeros, cropped from (row, column), mirrored if asked."""
    H, W, C = image_hwc.shape
    padded = torch.zeros(H + 2 * PADDING, W + 2 * PADDING, C, dtype=image_hwc.dtype)
    padded[PADDING : PADDING + H, PADDING : PADDING + W] = image_hwc
    cropped = padded[row : row + H, column : column + W]
    return cropped.flip(1) if is_flipped else cropped
