"""The samples of every batch, and those of every rank.

Order depends on (seed, epoch) and on the number of samples; the number of ranks only decides which rank reads
which samples.
"""

import numpy as np
from numpy.typing import NDArray

from addertrain.data.randomness import Stream, draw, draw_sequences


def sample_order(seed: int, epoch: int, num_samples: int) -> NDArray[np.int64]:
    """A permutation of 0 .. num_samples - 1: the samples sorted by their draws of this epoch."""
    draws = draw(seed, epoch, np.arange(num_samples), Stream.ORDER)
    return np.argsort(draws, kind="stable").astype(np.int64)


def reordered(
    order: NDArray[np.int64], start: int, *, seed: int, epoch: int, counter: int
) -> NDArray[np.int64]:
    """`order` with the samples from place `start` on in order number `counter` (1, 2, ...) of their own."""
    rest = order[start:]
    draws = draw_sequences(seed, epoch, rest, Stream.REORDER, count=counter)[:, -1]
    return np.concatenate([order[:start], rest[np.argsort(draws, kind="stable")]])


def training_share(batch: int, *, global_batch_size: int, rank: int, world_size: int) -> slice:
    """The samples of a global batch on which this rank trains, as a slice of the epoch's order.

    The slices of the ranks follow each other and make up the global batch; see `rank_share`.
    """
    start = batch * global_batch_size
    return rank_share(start, start + global_batch_size, rank=rank, world_size=world_size)


def evaluation_starts(num_samples: int, *, global_batch_size: int, world_size: int) -> list[int]:
    """The start of each global batch of an evaluation, and the end of the last one.

    A remainder of fewer samples than ranks joins the previous batch, so that every rank has samples in every
    batch and a collective in the forward pass cannot hang.
    """
    starts = list(range(0, num_samples, global_batch_size))
    if len(starts) > 1 and num_samples - starts[-1] < world_size:
        starts.pop()
    return [*starts, num_samples]


def rank_share(start: int, end: int, *, rank: int, world_size: int) -> slice:
    """This rank's share of the samples start .. end - 1; the shares differ by at most one sample."""
    size = end - start
    return slice(start + rank * size // world_size, start + (rank + 1) * size // world_size)
