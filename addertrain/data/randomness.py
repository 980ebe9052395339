"""Random numbers that depend only on (seed, epoch, sample, stream).

Counter-based: a draw is a hash of its coordinates, so it is the same on any rank, worker or thread, in any
batch and after any resume, and there is no state to store. The arithmetic is written out here, so that no
version of numpy changes it.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_WEYL = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: consecutive counters land far apart
# The finaliser of splitmix64 (Steele et al., 2014): shifts and odd factors.
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


class Stream(IntEnum):
    """The purpose of a draw; streams are independent of each other. The numbers must never change."""

    ORDER = 0
    CROP_ROW = 1
    CROP_COLUMN = 2
    FLIP = 3
    SPLIT = 4
    CROP_BOX = 5
    STORED_FORM = 6
    MIX_KIND = 7
    MIX_SHARE = 8
    OPERATION = 9
    REORDER = 10
    TRANSFORM = 11


def draw(seed: int, epoch: int, samples: NDArray[np.int64], stream: Stream) -> NDArray[np.uint64]:
    """One 64-bit draw for each sample, uniform over all 2^64 values."""
    key = 0  # hashed one word after the other: (seed 1, epoch 0) is not (seed 0, epoch 1)
    for word in (seed, epoch, int(stream)):
        key = int(_mix(np.array([(key + word + 1) * _WEYL & _MASK], dtype=np.uint64))[0])
    return _mix((samples.astype(np.uint64) + np.uint64(1)) * np.uint64(_WEYL) + np.uint64(key))


def draw_integers(
    seed: int, epoch: int, samples: NDArray[np.int64], stream: Stream, *, bound: int
) -> NDArray[np.int64]:
    """One integer of 0 .. bound - 1 for each sample; the bias is `bound` / 2^32, so let `bound` be small."""
    high = draw(seed, epoch, samples, stream) >> np.uint64(32)
    return ((high * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


def draw_sequences(
    seed: int, epoch: int, samples: NDArray[np.int64], stream: Stream, *, count: int
) -> NDArray[np.uint64]:
    """`count` 64-bit draws for each sample, (N, count): splitmix64 started at the sample's own draw."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_WEYL)
    return _mix(draw(seed, epoch, samples, stream)[:, np.newaxis] + steps)


def uniforms(draws: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers from 0 to below 1: the upper 53 bits of each draw."""
    return (draws >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit words in which every input bit moves about half of the output bits."""
    for shift, factor in _MIX:
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
    return words ^ (words >> np.uint64(31))
