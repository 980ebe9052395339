"""Random and central crops: the box of an image, and whether it is flipped.

The random draws need no sizes, so they are made for a batch before anything is read; the box is computed when
the size of the image is known. Loaders with the same draws crop identically.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from addertrain.data.randomness import Stream, draw_integers, draw_sequences, uniforms

_TRIES = 10
MIN_AREA = 0.08  # of a training crop, as a fraction of the image
MIN_ASPECT, MAX_ASPECT = 3 / 4, 4 / 3  # width by height
_ASPECT_BITS = 16


class Box(NamedTuple):
    """A box of an image, in pixels."""

    row: int
    column: int
    height: int
    width: int


@dataclass(frozen=True)
class RandomCrops:
    """Boxes of 8 to 100 % of the area and an aspect ratio of 3/4 to 4/3, flipped with probability 1/2.

    The distribution of GoogLeNet (Szegedy et al., 2015) as in torchvision's RandomResizedCrop: ten tries to
    draw a box that fits, otherwise the largest central box.

    Args:
        tries: (N, 10, 4): fraction of the area, aspect ratio, and the corner's row and column as fractions of
            the free space.
        is_flipped: (N,).
    """

    tries: NDArray[np.float64]
    is_flipped: NDArray[np.bool_]

    def box(self, k: int, height: int, width: int) -> Box:
        """The box of the k-th image, which has this size."""
        area = height * width
        for share, aspect, row, column in self.tries[k].tolist():
            box_width = round(math.sqrt(area * share * aspect))
            box_height = round(math.sqrt(area * share / aspect))
            if 0 < box_width <= width and 0 < box_height <= height:
                top, left = int(row * (height - box_height + 1)), int(column * (width - box_width + 1))
                return Box(top, left, box_height, box_width)
        box_width = min(width, round(height * MAX_ASPECT))
        box_height = min(height, round(width / MIN_ASPECT))
        return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)

    def part(self, where: slice) -> "RandomCrops":
        """The crops of some of the images."""
        return RandomCrops(self.tries[where], self.is_flipped[where])


@dataclass(frozen=True)
class CenterCrops:
    """The central square whose side is a fraction of the image's shorter side; never flipped."""

    share: float
    is_flipped: NDArray[np.bool_]

    def box(self, k: int, height: int, width: int) -> Box:
        """The box of an image of this size."""
        side = max(1, int(self.share * min(height, width)))
        return Box((height - side) // 2, (width - side) // 2, side, side)

    def part(self, where: slice) -> "CenterCrops":
        """The crops of some of the images."""
        return CenterCrops(self.share, self.is_flipped[where])


Crops = RandomCrops | CenterCrops


def center_crops(num_samples: int, *, share: float) -> CenterCrops:
    """Crops for an evaluation."""
    return CenterCrops(share, np.zeros(num_samples, dtype=np.bool_))


def random_crops(
    samples: NDArray[np.int64], *, seed: int, epoch: int, min_area: float = MIN_AREA
) -> RandomCrops:
    """Crops for training, by (seed, epoch, sample); `min_area` is the smallest fraction of the area."""
    draws = draw_sequences(seed, epoch, samples, Stream.CROP_BOX, count=4 * _TRIES)
    draws = draws.reshape(len(samples), _TRIES, 4)
    tries = uniforms(draws)
    tries[..., 0] = min_area + (1.0 - min_area) * tries[..., 0]
    tries[..., 1] = _aspects(draws[..., 1])
    is_flipped = draw_integers(seed, epoch, samples, Stream.FLIP, bound=2).astype(np.bool_)
    return RandomCrops(tries, is_flipped)


def _aspects(draws: NDArray[np.uint64]) -> NDArray[np.float64]:
    """3/4 · (16/9)^u for u with 16 bits: the logarithm is uniform.

    Products only: exp and log differ in their last bit from one machine to another, and with it a box.
    """
    aspects = np.full(draws.shape, MIN_ASPECT)
    factor = MAX_ASPECT / MIN_ASPECT
    for bit in range(63, 63 - _ASPECT_BITS, -1):
        factor = math.sqrt(factor)
        aspects *= np.where((draws >> np.uint64(bit)) & np.uint64(1), factor, 1.0)
    return aspects
