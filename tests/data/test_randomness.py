"""Counter-based draws: fixed for ever, independent of each other, uniform."""

import numpy as np

from addertrain.data.randomness import Stream, draw, draw_integers

SAMPLES = np.arange(100_000)


def test_draws_are_the_same_for_ever() -> None:
    assert draw(0, 0, np.array([0, 1]), Stream.ORDER).tolist() == [16243450829873959913, 7691045517760467747]
    assert draw_integers(7, 3, np.array([0, 5, 9]), Stream.CROP_ROW, bound=9).tolist() == [3, 8, 6]


def test_a_draw_depends_on_its_sample_and_not_on_the_batch_around_it() -> None:
    whole = draw(1, 2, SAMPLES, Stream.FLIP)
    some = np.array([99_999, 3, 3, 500])
    assert draw(1, 2, some, Stream.FLIP).tolist() == whole[some].tolist()


def test_seed_epoch_and_stream_each_change_the_draws_and_do_not_stand_in_for_each_other() -> None:
    coordinates = [(seed, epoch, stream) for seed in range(4) for epoch in range(4) for stream in Stream]
    draws = {draw(seed, epoch, SAMPLES[:2], stream).tobytes() for seed, epoch, stream in coordinates}
    assert len(draws) == len(coordinates)


def test_large_seeds_and_samples_are_fine() -> None:
    samples = np.array([2**40, 2**62])
    assert len(set(draw(2**32 - 1, 10**6, samples, Stream.ORDER).tolist())) == 2


def test_draws_are_uniform_and_uncorrelated() -> None:
    # Standard errors over 1e5 samples: a bit 0.5 / sqrt(1e5) = 0.0016, a correlation 1 / sqrt(1e5) = 0.0032.
    words = draw(0, 5, SAMPLES, Stream.CROP_ROW)
    bits = (words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert abs(bits.mean(axis=0) - 0.5).max() < 0.008
    others = (draw(0, 6, SAMPLES, Stream.CROP_ROW), draw(1, 5, SAMPLES, Stream.CROP_ROW), np.roll(words, 1))
    for other in (*others, draw(0, 5, SAMPLES, Stream.CROP_COLUMN)):
        assert abs(np.corrcoef(words.astype(float), other.astype(float))[0, 1]) < 0.016


def test_integers_cover_their_range_evenly() -> None:
    counts = np.bincount(draw_integers(0, 0, SAMPLES, Stream.CROP_ROW, bound=9), minlength=9)
    assert len(counts) == 9
    assert abs(counts / len(SAMPLES) * 9 - 1).max() < 0.045  # five standard errors
