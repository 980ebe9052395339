"""Mixup, cutmix and operations on the device: the right numbers, and the same on any number of ranks."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from addertrain.data import Batch, ImageArrays, ImageData, ImageLoader, build_loader
from addertrain.data.augment.mixing import Mix, beta_shares, draw_mix, mixed
from addertrain.data.augment.randaugment import NUM_OPERATIONS, apply_operations, draw_operations
from addertrain.data.loaders.device import DeviceStage
from addertrain.recipe import DataRecipe, RecipeError
from tests.train.small_runs import short_recipe

MANY = np.arange(20_000)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0])
def test_shares_follow_their_beta_distribution(alpha: float) -> None:
    draws = np.random.default_rng(0).random((40_000, 32))
    shares = beta_shares(draws, np.full(len(draws), alpha))
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert shares.mean() == pytest.approx(0.5, abs=0.01)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
    expected = torch.distributions.Beta(alpha, alpha).sample((40_000,)).numpy()
    assert np.quantile(shares, [0.1, 0.3, 0.7]) == pytest.approx(
        np.quantile(expected, [0.1, 0.3, 0.7]), abs=0.02
    )


def batch_of(num_images: int, *, size: int = 16) -> Batch:
    images = torch.randint(0, 256, (num_images, 3, size, size), dtype=torch.uint8)
    labels = torch.arange(num_images) % 10
    return Batch(
        images.contiguous(memory_format=torch.channels_last), labels, torch.arange(num_images) * 7 % 1000
    )


def mix_of(batch: Batch, **alphas: float) -> Mix:
    return draw_mix(batch.samples.numpy(), **({"mixup": 0.0, "cutmix": 0.0} | alphas), seed=1, epoch=2)


def test_mixup_blends_neighbours_and_their_labels() -> None:
    batch = batch_of(12)
    mix = mix_of(batch, mixup=1.0)
    result = mixed(batch, mix, num_classes=10)
    assert not mix.boxes.any()
    for k in range(12):
        share, other = mix.shares[k], k ^ 1
        expected = share * batch.images[k].float() + (1 - share) * batch.images[other].float()
        assert (result.images[k].float() - expected).abs().max() <= 0.501
        assert result.labels[k, batch.labels[k]] == pytest.approx(share.item())
        assert result.labels[k, batch.labels[other]] == pytest.approx(1 - share.item(), abs=1e-6)
    assert result.images.dtype == torch.uint8
    assert result.images.is_contiguous(memory_format=torch.channels_last)


def test_cutmix_pastes_a_box_and_labels_follow_its_area() -> None:
    batch = batch_of(40, size=32)
    result = mixed(batch, mix_of(batch, cutmix=1.0), num_classes=10)
    areas = []
    for k in range(40):
        own, other = batch.images[k], batch.images[k ^ 1]
        is_other = (result.images[k] == other).all(0) & ~(own == other).all(0)
        assert ((result.images[k] == own).all(0) | is_other).all()
        rows, columns = is_other.any(1).nonzero().flatten(), is_other.any(0).nonzero().flatten()
        if len(rows):  # a full box
            assert is_other[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        areas.append(is_other.float().mean().item())
        assert result.labels[k, batch.labels[k]] == pytest.approx(1 - areas[-1], abs=1e-6)
    assert 0.1 < np.mean(areas) < 0.5


def test_labels_add_up_to_one_and_both_kinds_appear() -> None:
    batch = batch_of(200, size=8)
    mix = mix_of(batch, mixup=0.2, cutmix=1.0)
    assert 60 < (mix.boxes[:, 2] > 0).sum() < 140
    labels = mixed(batch, mix, num_classes=10).labels
    assert torch.allclose(labels.sum(1), torch.ones(200))


def test_an_odd_batch_has_no_pairs() -> None:
    batch = batch_of(5)
    with pytest.raises(ValueError, match="an even number of images on every rank, got 5"):
        mixed(batch, mix_of(batch, mixup=1.0), num_classes=10)


def test_draws_depend_on_seed_epoch_and_sample_alone() -> None:
    whole = draw_mix(MANY[:64], mixup=0.5, cutmix=0.5, seed=1, epoch=2)
    part = draw_mix(MANY[30:34], mixup=0.5, cutmix=0.5, seed=1, epoch=2)
    assert torch.equal(whole.shares[30:34], part.shares)
    assert torch.equal(whole.boxes[30:34], part.boxes)
    other = draw_mix(MANY[:64], mixup=0.5, cutmix=0.5, seed=2, epoch=1)
    assert not torch.equal(whole.shares, other.shares)


def test_every_operation_appears_and_keeps_shape_and_kind() -> None:
    counts = np.bincount(draw_operations(MANY, seed=0, epoch=0), minlength=NUM_OPERATIONS)
    assert counts.min() > 0.8 * len(MANY) / NUM_OPERATIONS
    images = batch_of(NUM_OPERATIONS).images
    result = apply_operations(images, np.arange(NUM_OPERATIONS), magnitude=9)
    assert (result.dtype, result.shape) == (torch.uint8, images.shape)
    changed = [not torch.equal(left, right) for left, right in zip(images, result, strict=True)]
    # Identity, and what stretches noise that is stretched already.
    assert changed.count(False) <= 2


def test_an_operation_is_torchvisions_image_by_image() -> None:
    images = batch_of(8).images
    result = apply_operations(images, np.array([0, 1] * 4), magnitude=5)
    for k in range(8):
        factor = 1.45 if k % 2 == 0 else 0.55
        assert torch.equal(result[k], v2.adjust_brightness(images[k], factor))


def data() -> ImageData:
    images = torch.randint(0, 256, (80, 3, 8, 8), dtype=torch.uint8)
    arrays = ImageArrays(images.contiguous(memory_format=torch.channels_last), torch.arange(80) % 10)
    return ImageData(train=arrays, test=arrays, mean=(0.5,) * 3, std=(0.5,) * 3, num_classes=10)


SETTINGS: dict[str, Any] = {
    "name": "cifar10", "global_batch_size": 16, "mixup": 0.2, "cutmix": 1.0, "randaugment": 7
}  # fmt: skip


def build(images: ImageData, *, training: bool = True, device: str = "cpu", **share: int) -> ImageLoader:
    settings = DataRecipe(**SETTINGS)
    return build_loader(images, settings, training=training, seed=3, device=torch.device(device), **share)


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_the_mixtures_of_one(world_size: int) -> None:
    images = data()
    alone = build(images)
    ranks = [build(images, rank=rank, world_size=world_size) for rank in range(world_size)]
    for one in (alone, *ranks):
        one.set_epoch(2)
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert whole.labels.shape == (16, 10)
        for k, tensor in enumerate(whole):
            assert torch.equal(torch.cat([part[k] for part in parts]), tensor)


def test_a_seek_gives_the_identical_mixtures() -> None:
    images = data()
    whole = [batch.images for batch in build(images)]
    other = build(images)
    other.load_state_dict({"epoch": 0, "batch": 3})
    tail: list[Tensor] = [batch.images for batch in other]
    assert all(torch.equal(left, right) for left, right in zip(tail, whole[3:], strict=True))
    assert other.state_dict() == {"epoch": 0, "batch": 5}


def test_evaluation_and_recalibration_see_images_as_they_are() -> None:
    images = data()
    assert next(iter(build(images, training=False))).labels.dtype == torch.int64
    plain = build_loader(images, DataRecipe(**SETTINGS), training=True, seed=3)
    assert next(iter(plain)).labels.dtype == torch.int64
    assert next(iter(build(images).batches(0, [0]))).labels.dtype == torch.int64


def test_ranks_with_odd_parts_are_refused_at_once() -> None:
    with pytest.raises(
        ValueError,
        match=r"data.mixup, data.cutmix: expected the same even number.*got 16 images on 16 ranks;",
    ):
        build(data(), world_size=16)


@pytest.mark.parametrize("key", ["mixup=1.5", "cutmix=-0.1", "randaugment=11"])
def test_settings_out_of_range_are_refused(key: str) -> None:
    with pytest.raises(RecipeError, match=f"data.{key.split('=')[0]}: expected 0 to 1"):
        short_recipe(f"--data.{key}")


@pytest.mark.gpu
def test_copies_on_a_side_stream_are_the_batches_and_survive_late_use() -> None:
    """Slow work on the device while the host runs ahead: a buffer that was reused early would show."""
    images = data()
    expected = [batch.images.float().sum((1, 2, 3)) for batch in build(images)]
    work = torch.randn(4096, 4096, device="cuda")
    sums = []
    for batch in build(images, device="cuda"):
        for _ in range(10):
            work = work @ work / 4096
        sums.append(batch.images.float().sum((1, 2, 3)))
    torch.cuda.synchronize()
    for left, right in zip(sums, expected, strict=True):
        assert torch.equal(left.cpu(), right)
    stage = DeviceStage(torch.device("cuda"))
    host = (Batch(*(part.pin_memory() for part in batch_of(64))) for _ in range(50))
    assert sum(1 for batch in stage(host, 0) if batch.images.is_cuda) == 50
