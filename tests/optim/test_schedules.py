"""Schedules as pure functions of the step."""

from itertools import pairwise

import pytest

from addertrain.optim.schedules import SCHEDULES, cosine


def test_cosine_starts_at_one_halves_in_the_middle_and_ends_at_exactly_zero() -> None:
    assert cosine(0, 7) == 1.0
    assert cosine(50, 100) == pytest.approx(0.5)
    assert cosine(11750, 11750) == 0.0
    assert cosine(8, 7) == 0.0


def test_cosine_never_rises() -> None:
    factors = [cosine(step, 300) for step in range(301)]
    assert all(after < before for before, after in pairwise(factors))


@pytest.mark.parametrize(("step", "num_steps"), [(0, 0), (-1, 10)])
def test_meaningless_steps_are_refused(step: int, num_steps: int) -> None:
    with pytest.raises(ValueError, match="expected step >= 0 and num_steps >= 1"):
        cosine(step, num_steps)


def test_schedules_are_found_by_name() -> None:
    assert SCHEDULES["cosine"] is cosine
