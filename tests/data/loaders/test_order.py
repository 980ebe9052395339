"""Permutations, and the cut of a global batch over the ranks."""

import itertools

import numpy as np
import pytest

from addertrain.data.loaders.order import evaluation_starts, rank_share, sample_order, training_share


def test_order_is_a_permutation_that_seed_and_epoch_alone_decide() -> None:
    order = sample_order(3, 5, 1000)
    assert sorted(order.tolist()) == list(range(1000))
    assert order.tolist() == sample_order(3, 5, 1000).tolist()


def test_order_differs_between_epochs_and_seeds() -> None:
    orders = {sample_order(seed, epoch, 1000).tobytes() for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25  # seed 1 epoch 0 is not seed 0 epoch 1


def test_order_is_the_same_for_ever() -> None:
    assert sample_order(0, 0, 8).tolist() == [3, 4, 7, 2, 6, 1, 5, 0]


def test_order_is_mixed() -> None:
    order = sample_order(0, 0, 10_000)
    # A random permutation moves a sample by a third of the length on average; standard error 0.0024 of it.
    assert abs(np.abs(order - np.arange(10_000)).mean() / 10_000 - 1 / 3) < 0.012


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_training_shares_of_all_ranks_are_the_global_batch(world_size: int) -> None:
    order = sample_order(0, 1, 100)
    for batch in range(100 // 8):
        shares = [
            order[training_share(batch, global_batch_size=8, rank=rank, world_size=world_size)]
            for rank in range(world_size)
        ]
        assert np.concatenate(shares).tolist() == order[8 * batch : 8 * batch + 8].tolist()
        assert {len(share) for share in shares} <= {8 // world_size, -(-8 // world_size)}


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("num_samples", [7, 8, 63, 64, 65, 66, 70, 128, 360])
def test_rank_shares_cover_every_sample_once_and_leave_no_rank_out(num_samples: int, world_size: int) -> None:
    starts = evaluation_starts(num_samples, global_batch_size=64, world_size=world_size)
    seen = []
    for start, end in itertools.pairwise(starts):
        sizes = []
        for rank in range(world_size):
            share = rank_share(start, end, rank=rank, world_size=world_size)
            seen += range(share.start, share.stop)
            sizes.append(share.stop - share.start)
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1
    assert seen == list(range(num_samples))
