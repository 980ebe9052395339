"""A lighter RandAugment on the device: one operation of torchvision v2 for every image.

Cubuk et al., 2020, with one operation instead of two or three and one magnitude per recipe. Images with the
same operation are processed together, so a batch takes at most nineteen calls.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from addertrain.data.randomness import Stream, draw_integers

MAX_MAGNITUDE = 10
_GREY = [128.0]

# Of images (N, C, H, W) and a strength from -1 to 1.
_SIGNED: tuple[Callable[[Tensor, float], Tensor], ...] = (
    lambda images, strength: v2.adjust_brightness(images, 1.0 + 0.9 * strength),
    lambda images, strength: v2.adjust_contrast(images, 1.0 + 0.9 * strength),
    lambda images, strength: v2.adjust_saturation(images, 1.0 + 0.9 * strength),
    lambda images, strength: v2.adjust_sharpness(images, 1.0 + 0.9 * strength),
    lambda images, strength: v2.rotate(images, 30.0 * strength, fill=_GREY),
    lambda images, strength: _sheared(images, [np.rad2deg(np.arctan(0.3 * strength)), 0.0]),
    lambda images, strength: _sheared(images, [0.0, np.rad2deg(np.arctan(0.3 * strength))]),
)
# Of images and a strength from 0 to 1.
_UNSIGNED: tuple[Callable[[Tensor, float], Tensor], ...] = (
    lambda images, strength: images,
    lambda images, strength: v2.autocontrast(images),
    lambda images, strength: v2.equalize(images),
    lambda images, strength: v2.posterize(images, bits=8 - round(4 * strength)),
    lambda images, strength: v2.solarize(images, threshold=255.0 * (1.0 - strength)),
)
NUM_OPERATIONS = 2 * len(_SIGNED) + len(_UNSIGNED)


def draw_operations(samples: NDArray[np.int64], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Which operation each sample gets, (N,), by (seed, epoch, sample); each operation and sign with the same
    probability.
    """
    return draw_integers(seed, epoch, samples, Stream.OPERATION, bound=NUM_OPERATIONS)


def apply_operations(images: Tensor, operations: NDArray[np.int64], *, magnitude: int) -> Tensor:
    """New images, uint8 (N, C, H, W), channels-last; `magnitude` from 0 to 10."""
    result = images.clone(memory_format=torch.channels_last)
    for operation in np.unique(operations).tolist():
        chosen = torch.from_numpy(np.flatnonzero(operations == operation)).to(images.device)
        result[chosen] = _apply(images[chosen], operation, magnitude / MAX_MAGNITUDE)
    return result


def _apply(images: Tensor, operation: int, strength: float) -> Tensor:
    if operation < 2 * len(_SIGNED):
        kind, is_negative = divmod(operation, 2)
        return _SIGNED[kind](images, -strength if is_negative else strength)
    return _UNSIGNED[operation - 2 * len(_SIGNED)](images, strength)


def _sheared(images: Tensor, degrees: list[float]) -> Tensor:
    return v2.affine(images, angle=0.0, translate=[0, 0], scale=1.0, shear=degrees, fill=_GREY)
