"""Crops: the right distribution, inside the picture, and by (seed, epoch, sample) alone."""

import math

import numpy as np
import pytest

from addertrain.data.crops import Box, center_crops, random_crops
from tests.data.photographs import SIZES

MANY = np.arange(20_000)
FOR_EVER = [Box(76, 113, 265, 234), Box(25, 14, 315, 285), Box(117, 199, 150, 145)]
FLIPPED_FOR_EVER = [False, False, True]


@pytest.mark.parametrize("size", [*SIZES, (1, 1), (2, 400), (3000, 5)])
def test_a_random_box_lies_inside_the_picture(size: tuple[int, int]) -> None:
    height, width = size
    crops = random_crops(MANY[:500], seed=1, epoch=2)
    for k in range(500):
        box = crops.box(k, height, width)
        assert box.row >= 0
        assert box.column >= 0
        assert 1 <= box.height <= height - box.row
        assert 1 <= box.width <= width - box.column


def test_areas_are_uniform_aspects_log_uniform_and_half_is_mirrored() -> None:
    crops = random_crops(MANY, seed=0, epoch=0)
    boxes = [crops.box(k, 1000, 1000) for k in range(len(MANY))]
    aspects = [math.log(box.width / box.height) / math.log(4 / 3) for box in boxes]
    shares = [box.height * box.width / 1e6 for box in boxes]
    # The first try at a part of nearly everything often does not fit; small parts always do.
    small = [share for share in shares if share < 0.5]
    assert min(shares) >= 0.079
    assert np.mean(small) == pytest.approx((0.08 + 0.5) / 2, abs=0.005)
    assert np.mean(aspects) == pytest.approx(0, abs=0.02)
    assert np.std([a for a, s in zip(aspects, shares, strict=True) if s < 0.5]) == pytest.approx(
        1 / math.sqrt(3), abs=0.01
    )
    assert np.mean(crops.is_flipped) == pytest.approx(0.5, abs=0.015)
    rows = [box.row / (1000 - box.height) for box in boxes if box.height < 500]
    assert np.mean(rows) == pytest.approx(0.5, abs=0.015)


def test_crops_depend_on_seed_epoch_and_sample_and_not_on_the_batch() -> None:
    whole = random_crops(MANY[:64], seed=3, epoch=4)
    alone = random_crops(MANY[17:18], seed=3, epoch=4)
    assert np.array_equal(whole.tries[17], alone.tries[0])
    assert np.array_equal(whole.part(slice(17, 18)).tries, alone.tries)
    assert not np.array_equal(whole.tries, random_crops(MANY[:64], seed=4, epoch=3).tries)
    assert not np.array_equal(whole.tries, random_crops(MANY[:64], seed=3, epoch=5).tries)


def test_the_draws_of_a_crop_are_the_same_for_ever() -> None:
    crops = random_crops(np.array([0, 7, 1_281_166]), seed=5, epoch=6)
    boxes = [crops.box(k, 375, 500) for k in range(3)]
    assert boxes == FOR_EVER
    assert crops.is_flipped.tolist() == FLIPPED_FOR_EVER


def test_a_picture_too_long_for_any_part_gives_its_middle() -> None:
    crops = random_crops(MANY[:1], seed=0, epoch=0, min_area=1.0)
    assert crops.box(0, 100, 1000) == Box(0, 433, 100, 133)
    assert crops.box(0, 1000, 100) == Box(433, 0, 133, 100)


def test_the_smallest_area_can_be_raised() -> None:
    crops = random_crops(MANY[:2000], seed=0, epoch=0, min_area=0.35)
    shares = [box.height * box.width / 1e6 for box in (crops.box(k, 1000, 1000) for k in range(2000))]
    assert min(shares) >= 0.345


def test_the_central_crop_is_a_square_of_the_shorter_side() -> None:
    assert center_crops(1, share=224 / 256).box(0, 375, 500) == Box(23, 86, 328, 328)
    assert center_crops(1, share=1.0).box(0, 30, 20) == Box(5, 0, 20, 20)
    assert center_crops(1, share=0.01).box(0, 3, 3) == Box(1, 1, 1, 1)
