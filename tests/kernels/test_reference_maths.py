"""device/reference_maths.h: one element of Eq. 2 and Eq. 6, where rounding and comparisons may go wrong."""

import ctypes
import itertools
import math

import pytest

NUMBERS = (-math.inf, -3.0, -1.0, -1e-300, -0.0, 0.0, 0.25, 1.0, 2.5, math.inf)


@pytest.mark.parametrize(("x", "w"), list(itertools.product(NUMBERS, NUMBERS)))
def test_similarity_is_minus_the_distance(host_library: ctypes.CDLL, x: float, w: float) -> None:
    raw, offset_free = (host_library.similarity_of(x, w, flag) for flag in (False, True))

    expected = -abs(x - w)
    assert raw == expected or (math.isnan(raw) and math.isnan(expected))
    assert offset_free == abs(w) + expected or not math.isfinite(w)


@pytest.mark.parametrize(("x", "w"), [(math.nan, 1.0), (1.0, math.nan), (math.nan, math.nan)])
@pytest.mark.parametrize("offset_free", [False, True])
def test_similarity_of_nan_is_nan(host_library: ctypes.CDLL, x: float, w: float, offset_free: bool) -> None:
    assert math.isnan(host_library.similarity_of(x, w, offset_free))


@pytest.mark.parametrize("value", [-math.inf, math.inf, math.nan])
def test_an_offset_free_similarity_never_hides_a_filter(host_library: ctypes.CDLL, value: float) -> None:
    assert not math.isfinite(host_library.similarity_of(0.5, value, True))


@pytest.mark.parametrize("difference", NUMBERS)
def test_hard_tanh_clips(host_library: ctypes.CDLL, difference: float) -> None:
    assert host_library.hard_tanh_of(difference) == max(-1.0, min(1.0, difference))


def test_hard_tanh_of_nan_is_nan(host_library: ctypes.CDLL) -> None:
    assert math.isnan(host_library.hard_tanh_of(math.nan))
