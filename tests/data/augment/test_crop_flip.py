"""Crops and flips: against the obvious form, and as a function of (seed, epoch, sample) alone."""

import numpy as np
import pytest
import torch

from addertrain.data.augment.crop_flip import PADDING, augment, crop_flip, crop_flip_one


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(17, 32, 32, 3), (5, 32, 32, 1), (4, 7, 9, 2), (1, 1, 1, 3)])
def test_crop_flip_matches_reference(shape: tuple[int, ...]) -> None:
    images = random_images(*shape)
    generator = np.random.default_rng(1)
    rows, columns = generator.integers(0, 2 * PADDING + 1, (2, shape[0]))
    is_flipped = generator.random(shape[0]) < 0.5
    expected = [
        crop_flip_one(*arguments)
        for arguments in zip(images, rows.tolist(), columns.tolist(), is_flipped.tolist(), strict=True)
    ]
    assert torch.equal(crop_flip(images, rows, columns, is_flipped), torch.stack(expected))


def test_the_middle_crop_without_flip_is_the_image_and_nothing_is_written_back() -> None:
    images = random_images(3, 32, 32, 3)
    before = images.clone()
    middle = np.full(3, PADDING)
    assert torch.equal(crop_flip(images, middle, middle, np.zeros(3, dtype=bool)), before)
    assert torch.equal(crop_flip(images, middle, middle, np.ones(3, dtype=bool)), before.flip(2))
    assert torch.equal(images, before)


def test_an_image_is_augmented_alike_in_any_batch_and_anew_in_each_epoch() -> None:
    images = random_images(64, 32, 32, 3)
    samples = np.arange(64)
    whole = augment(images, samples, "crop_flip", seed=0, epoch=0)
    some = np.array([5, 63, 0])
    assert torch.equal(augment(images[some], samples[some], "crop_flip", seed=0, epoch=0), whole[some])
    for seed, epoch in ((0, 1), (1, 0)):
        other = augment(images, samples, "crop_flip", seed=seed, epoch=epoch)
        assert (other != whole).flatten(1).any(dim=1).float().mean() > 0.9
    assert augment(images, samples, "none", seed=0, epoch=0) is images


def test_every_crop_and_both_directions_occur() -> None:
    # One bright pixel in the middle tells the crop's corner; the other channel's column tells the direction.
    images = torch.zeros(5000, 32, 32, 2, dtype=torch.uint8)
    images[:, 16, 16, 0] = 1
    images[:, 16, 17, 1] = 1
    first, second = augment(images, np.arange(5000), "crop_flip", seed=0, epoch=0).unbind(3)
    place = first.flatten(1).long().argmax(dim=1)
    is_flipped = second.flatten(1).long().argmax(dim=1) < place
    assert abs(is_flipped.float().mean() - 0.5) < 0.035  # five standard errors
    corners = torch.stack([place // 32, place % 32], dim=1)
    assert len(corners[~is_flipped].unique(dim=0)) == (2 * PADDING + 1) ** 2
