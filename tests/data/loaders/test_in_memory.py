"""MemoryLoader: the same global batches on any number of ranks, from any position."""

from typing import Any

import numpy as np
import pytest
import torch

from addertrain.data import ImageArrays, MemoryLoader
from addertrain.data.augment.crop_flip import augment
from addertrain.data.loaders.order import sample_order

NUM_SAMPLES = 100


@pytest.fixture(scope="module")
def arrays() -> ImageArrays:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (NUM_SAMPLES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return ImageArrays(images.contiguous(memory_format=torch.channels_last), torch.arange(NUM_SAMPLES) % 10)


def loader(arrays: ImageArrays, **options: Any) -> MemoryLoader:
    defaults = {"global_batch_size": 8, "augmentation": "crop_flip", "training": True}
    return MemoryLoader(arrays, **(defaults | options))


def batches_of(one: MemoryLoader) -> list[tuple[bytes, bytes, list[int]]]:
    return [
        (b.images.contiguous().numpy().tobytes(), b.labels.numpy().tobytes(), b.samples.tolist()) for b in one
    ]


def test_a_batch_is_uint8_and_channels_last_with_its_labels_and_samples(arrays: ImageArrays) -> None:
    batch = next(iter(loader(arrays, augmentation="none")))
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (8, 3, 32, 32)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.images, arrays.images_nchw[batch.samples])
    assert torch.equal(batch.labels, arrays.labels[batch.samples])
    assert (batch.labels.dtype, batch.samples.dtype) == (torch.int64, torch.int64)


def test_the_images_are_shared_not_copied(arrays: ImageArrays) -> None:
    assert loader(arrays)._images_nhwc.data_ptr() == arrays.images_nchw.data_ptr()


def test_training_takes_whole_global_batches_in_the_order_of_the_epoch(arrays: ImageArrays) -> None:
    one = loader(arrays, seed=5)
    one.set_epoch(2)
    samples = [sample for _, _, part in batches_of(one) for sample in part]
    assert len(one) == 12
    assert samples == sample_order(5, 2, NUM_SAMPLES)[:96].tolist()


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_the_global_batches_of_one_rank(arrays: ImageArrays, world_size: int) -> None:
    alone = loader(arrays, seed=1)
    ranks = [loader(arrays, seed=1, rank=rank, world_size=world_size) for rank in range(world_size)]
    for epoch in (0, 3):
        for one in (alone, *ranks):
            one.set_epoch(epoch)
        for whole, *parts in zip(alone, *ranks, strict=True):
            for k, tensor in enumerate(whole):
                assert torch.equal(torch.cat([part[k] for part in parts]), tensor)


def test_an_image_is_augmented_by_seed_epoch_and_sample(arrays: ImageArrays) -> None:
    one = loader(arrays, seed=4)
    one.set_epoch(7)
    batch = next(iter(one))
    images_nhwc = arrays.images_nchw[batch.samples].permute(0, 2, 3, 1).contiguous()
    expected = augment(images_nhwc, batch.samples.numpy(), "crop_flip", seed=4, epoch=7)
    assert torch.equal(batch.images.permute(0, 2, 3, 1), expected)


def test_from_some_epoch_on_images_are_only_flipped(arrays: ImageArrays) -> None:
    always, until = loader(arrays, seed=4), loader(arrays, seed=4, crop_until=7)
    for one in (always, until):
        one.set_epoch(6)
    assert batches_of(always) == batches_of(until)

    until.set_epoch(7)
    for batch in until:
        whole = arrays.images_nchw[batch.samples]
        is_itself, is_mirrored = ((batch.images == each).flatten(1).all(1) for each in (whole, whole.flip(3)))
        assert (is_itself ^ is_mirrored).all()
        assert 0 < is_mirrored.sum() < len(whole)
    assert [until.first_alike(epoch) for epoch in (0, 6, 7, 50)] == [0, 0, 7, 7]
    assert [always.first_alike(epoch) for epoch in (0, 50)] == [0, 0]


def test_views_are_cropped_in_every_epoch(arrays: ImageArrays) -> None:
    always, until = loader(arrays, seed=4), loader(arrays, seed=4, crop_until=7)

    for one, other in zip(always.view(9), until.view(9), strict=True):
        assert torch.equal(one.images, other.images)


def test_iterating_again_repeats_the_epoch_and_does_not_shift_the_next(arrays: ImageArrays) -> None:
    one, other = loader(arrays), loader(arrays)
    first = batches_of(one)
    for _ in zip(range(3), one, strict=False):  # an iteration that is given up
        pass
    assert batches_of(one) == first
    one.set_epoch(1)
    other.set_epoch(1)
    assert batches_of(one) == batches_of(other) != first


@pytest.mark.parametrize("start", [0, 1, 7, 11, 12])
def test_seeking_to_any_batch_gives_the_identical_tail(arrays: ImageArrays, start: int) -> None:
    one, other = loader(arrays), loader(arrays)
    one.set_epoch(3)
    whole = batches_of(one)
    other.load_state_dict({"epoch": 3, "batch": start})
    assert batches_of(other) == whole[start:]
    assert batches_of(other) == whole  # the seek counts once


def test_the_state_counts_batches_handed_over_and_serves_any_number_of_ranks(arrays: ImageArrays) -> None:
    one = loader(arrays)
    one.set_epoch(2)
    whole = batches_of(one)
    iterator = iter(one)
    for _ in range(5):
        next(iterator)
    state = one.state_dict()
    assert state == {"epoch": 2, "batch": 5}
    ranks = [loader(arrays, rank=rank, world_size=2) for rank in range(2)]
    for rank in ranks:
        rank.load_state_dict(state)
    samples = [first.samples.tolist() + second.samples.tolist() for first, second in zip(*ranks, strict=True)]
    assert samples == [part for _, _, part in whole[5:]]
    assert ranks[0].state_dict() == ranks[1].state_dict() == {"epoch": 2, "batch": 12}


def test_what_is_left_of_an_epoch_comes_in_another_order_and_a_resumption_knows(arrays: ImageArrays) -> None:
    def samples(one: MemoryLoader) -> list[list[int]]:
        return [batch.samples.tolist() for batch in one]

    plain = samples(loader(arrays))
    one = loader(arrays)
    one.load_state_dict({"epoch": 0, "batch": 2})
    one.reorder(1)
    iterator = iter(one)
    third = next(iterator).samples.tolist()
    state = one.state_dict()
    rest = [batch.samples.tolist() for batch in iterator]

    assert state == {"epoch": 0, "batch": 3, "reorderings": [[2 * len(third), 1]]}
    assert [third, *rest] != plain[2:]
    seen = [sample for batch in [*plain[:2], third, *rest] for sample in batch]
    assert len(set(seen)) == len(seen)
    resumed = loader(arrays)
    resumed.load_state_dict(state)
    assert samples(resumed) == rest
    resumed.set_epoch(1)
    other = loader(arrays)
    other.set_epoch(1)
    assert samples(resumed) == samples(other)
    again = loader(arrays)
    again.load_state_dict({"epoch": 0, "batch": 2})
    again.reorder(2)
    assert samples(again) not in ([third, *rest], plain[2:])


def test_set_epoch_keeps_a_loaded_position_of_that_epoch_and_drops_one_of_another(
    arrays: ImageArrays,
) -> None:
    one = loader(arrays)
    one.load_state_dict({"epoch": 2, "batch": 10})
    assert one.state_dict() == {"epoch": 2, "batch": 10}
    iter(one)  # Lightning makes an iterator before it sets the epoch, and another one after
    one.set_epoch(2)
    assert len(batches_of(one)) == 2
    one.load_state_dict({"epoch": 2, "batch": 12})
    one.set_epoch(3)
    assert one.state_dict() == {"epoch": 3, "batch": 0}
    assert len(batches_of(one)) == 12


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("num_samples", [7, 64, 65, 66, 100])
def test_evaluation_counts_every_image_once_on_any_world_size(
    arrays: ImageArrays, world_size: int, num_samples: int
) -> None:
    part = ImageArrays(arrays.images_nchw[:num_samples], arrays.labels[:num_samples])
    ranks = [
        loader(part, global_batch_size=64, rank=rank, world_size=world_size, training=False)
        for rank in range(world_size)
    ]
    seen = [sample for rank in ranks for batch in rank for sample in batch.samples.tolist()]
    assert sorted(seen) == list(range(num_samples))
    assert len({len(rank) for rank in ranks}) == 1
    assert all(len(list(rank)) == len(rank) for rank in ranks)
    if world_size == 1:
        assert seen == sorted(seen)


def test_evaluation_neither_augments_nor_depends_on_epoch_and_seed(arrays: ImageArrays) -> None:
    one, other = loader(arrays, training=False, seed=0), loader(arrays, training=False, seed=9)
    other.set_epoch(5)
    assert batches_of(one) == batches_of(other)
    assert torch.equal(torch.cat([batch.images for batch in one]), arrays.images_nchw)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"world_size": 9}, "for each of 9 ranks, got 8"),
        ({"global_batch_size": 128}, "one global batch of 128 images, got 100"),
        ({"rank": 2, "world_size": 2}, "a rank from 0 to 1, got 2"),
        ({"training": False, "world_size": 101}, "each of 101 ranks, got 100"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arrays: ImageArrays, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        loader(arrays, **options)


def test_a_position_beyond_the_epoch_is_refused(arrays: ImageArrays) -> None:
    with pytest.raises(ValueError, match="0 to 12 batches, got 13"):
        loader(arrays).load_state_dict({"epoch": 0, "batch": 13})


def test_images_that_are_not_channels_last_give_the_same_batches(arrays: ImageArrays) -> None:
    plain = ImageArrays(arrays.images_nchw.contiguous(), arrays.labels)
    assert batches_of(loader(plain)) == batches_of(loader(arrays))


def test_a_loader_leaves_global_random_state_alone(arrays: ImageArrays) -> None:
    before = (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())  # noqa: NPY002
    batches_of(loader(arrays))
    assert (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
