"""Area interpolation of a box of an image, bit-identical to FFCV's, which is OpenCV's.

An output pixel is the mean over its cell of the box. OpenCV processes images of three channels pixel by
pixel; `kernels/csrc/pictures/area.cpp` uses vectors, with the same order of sums.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from addertrain.data.beton import part_decoder
from addertrain.data.crops import Box

Resize = Callable[[NDArray[np.uint8], Box, NDArray[np.uint8]], None]
"""Fills an image (H, W, 3) from a box of pixels (H, W, 3), by the function that is to be agreed with."""

PIXELS_TAIL = 1  # bytes behind the last pixel that are read
_TRIED = [  # height and width of a picture, a box of it, and those of the image
    ((60, 71), Box(3, 5, 50, 60), (32, 32)),
    ((90, 40), Box(0, 0, 90, 40), (31, 17)),
    ((150, 33), Box(1, 0, 149, 32), (16, 16)),
]


def shrink_box(pixels: NDArray[np.uint8], box: Box, image: NDArray[np.uint8]) -> bool:
    """Fills an image (H, W, 3) from a box of pixels (H, W, 3); False if it is left to OpenCV, which is the
    case if a side grows or both shrink by integers.
    """
    library = part_decoder.library()
    if library is None:
        return False
    with_tail = np.append(pixels.reshape(-1), np.zeros(PIXELS_TAIL, dtype=np.uint8))
    height, width = image.shape[:2]
    return bool(
        library.addertrain_shrink_box(
            with_tail.ctypes.data, pixels.shape[1], *box, image.ctypes.data, height, width
        )
    )


def gives_the_pixels_of(resize: Resize) -> bool:
    """Whether boxes of noise are shrunk to the same bits."""
    return part_decoder.library() is not None and all(
        _is_same(picture, box, size, resize) for picture, box, size in _TRIED
    )


def _is_same(picture: tuple[int, int], box: Box, size: tuple[int, int], resize: Resize) -> bool:
    pixels = np.random.default_rng(0).integers(0, 256, (*picture, 3), dtype=np.uint8)
    ours, theirs = (np.empty((*size, 3), dtype=np.uint8) for _ in range(2))
    resize(pixels, box, theirs)
    return shrink_box(pixels, box, ours) and np.array_equal(ours, theirs)
