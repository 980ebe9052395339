"""Boxes of pictures, shrunk with the bits of FFCV's area interpolation; or left to it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from addertrain.data.beton import part_decoder
from addertrain.data.beton.box_shrinker import gives_the_pixels_of, shrink_box
from addertrain.data.beton.reader import resize
from addertrain.data.crops import Box

pytestmark = pytest.mark.skipif(
    part_decoder.library() is None, reason="libjpeg-turbo's headers were not there"
)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 224])
def test_every_box_has_ffcvs_bits(size: int) -> None:
    draws = np.random.default_rng(size)
    num_shrunk = 0
    for _ in range(30):
        height, width = draws.integers(size, 3 * size + 9, 2).tolist()
        box_height, box_width = (
            draws.integers(size, height + 1).item(),
            draws.integers(size, width + 1).item(),
        )
        row, column = (
            draws.integers(height - box_height + 1).item(),
            draws.integers(width - box_width + 1).item(),
        )
        pixels, box = noise(height, width), Box(row, column, box_height, box_width)
        ours, theirs = (np.zeros((size, size, 3), dtype=np.uint8) for _ in range(2))
        if shrink_box(pixels, box, ours):
            num_shrunk += 1
            resize(pixels, box, theirs)
            assert np.array_equal(ours, theirs), box
    assert num_shrunk > 15 or size == 1  # one pixel is the mean of whole pixels: all of it is OpenCV's


@pytest.mark.parametrize("value", [0, 1, 254, 255])
def test_a_plain_picture_stays_what_it_is(value: int) -> None:
    image = np.zeros((50, 50, 3), dtype=np.uint8)
    assert shrink_box(np.full((91, 77, 3), value, dtype=np.uint8), Box(0, 0, 91, 77), image)
    assert (image == value).all()


@pytest.mark.parametrize(
    "box", [Box(0, 0, 20, 90), Box(0, 0, 90, 20), Box(0, 0, 32, 32), Box(0, 0, 64, 96)],
    ids=["lower", "narrower", "as large", "whole numbers"],
)  # fmt: skip
def test_what_grows_or_shrinks_by_whole_numbers_is_opencvs(box: Box) -> None:
    image = np.full((32, 32, 3), 7, dtype=np.uint8)
    assert not shrink_box(noise(100, 100), box, image)
    assert (image == 7).all()


def test_other_pixels_are_noticed() -> None:
    def darker(pixels: NDArray[np.uint8], box: Box, image: NDArray[np.uint8]) -> None:
        resize(pixels, box, image)
        image[0, 0, 0] ^= 1

    assert gives_the_pixels_of(resize)
    assert not gives_the_pixels_of(darker)
