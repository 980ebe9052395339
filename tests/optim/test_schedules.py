"""Schedules as pure functions of the step."""

import math
from itertools import pairwise

import pytest

from addertrain.optim import Schedule
from addertrain.optim.schedules import (
    SCHEDULES,
    build_schedule,
    cosine,
    polynomial,
    stepwise,
    warmed_up,
)
from addertrain.recipe import ScheduleRecipe


def test_cosine_starts_at_one_halves_in_the_middle_and_ends_at_exactly_zero() -> None:
    assert cosine(0, 7) == 1.0
    assert cosine(50, 100) == pytest.approx(0.5)
    assert cosine(11750, 11750) == 0.0
    assert cosine(8, 7) == 0.0


def test_cosine_never_rises() -> None:
    factors = [cosine(step, 300) for step in range(301)]
    assert all(after < before for before, after in pairwise(factors))


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(("step", "num_steps"), [(0, 0), (-1, 10)])
def test_meaningless_steps_are_refused(schedule: Schedule, step: int, num_steps: int) -> None:
    with pytest.raises(ValueError, match="expected step >= 0 and num_steps >= 1"):
        schedule(step, num_steps)


def test_schedules_are_found_by_name() -> None:
    assert {"cosine": cosine, "polynomial": polynomial} == SCHEDULES


def test_polynomial_is_its_closed_form() -> None:
    for step in (0, 1, 17, 99, 100, 130):
        assert polynomial(step, 100, power=0.9) == max(0.0, 1 - step / 100) ** 0.9
    assert polynomial(25, 100) == 0.75


def test_stepwise_falls_at_once() -> None:
    assert [stepwise(step, 9, every=3, factor=0.1) for step in (0, 2, 3, 5, 6)] == [
        1.0, 1.0, 0.1, 0.1, 0.1**2,
    ]  # fmt: skip


def test_a_warm_up_rises_linearly_and_hands_the_full_rate_to_the_schedule() -> None:
    factors = [warmed_up(step, 10, warmup_steps=4, after=cosine) for step in range(11)]

    assert factors[:4] == [0.2, 0.4, 0.6, 0.8]
    assert factors[4:] == [0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(7)]


@pytest.mark.parametrize("warmup_steps", [-1, 10, 11])
def test_a_warm_up_that_leaves_no_step_is_refused(warmup_steps: int) -> None:
    with pytest.raises(ValueError, match="expected a warm-up shorter than the schedule's 10 steps"):
        warmed_up(0, 10, warmup_steps=warmup_steps, after=cosine)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, lambda step: 0.5 * (1 + math.cos(math.pi * step / 70))),
        ({"name": "polynomial", "power": 2.0}, lambda step: (1 - step / 70) ** 2),
        ({"name": "step", "step_epochs": 3, "step_factor": 0.5}, lambda step: 0.5 ** (step // 21)),
        (
            {"warmup_epochs": 0.5},  # three and a half steps are four
            lambda step: (step + 1) / 5 if step < 4 else 0.5 * (1 + math.cos(math.pi * (step - 4) / 66)),
        ),
        (
            {"name": "step", "step_epochs": 3, "warmup_epochs": 1.0},
            lambda step: (step + 1) / 8 if step < 7 else 0.1 ** ((step - 7) // 21),
        ),
    ],
    ids=["cosine", "polynomial", "step", "warm-up", "warm-up and step"],
)
def test_a_recipes_schedule_is_its_closed_form(settings: dict[str, object], expected: Schedule) -> None:
    recipe = ScheduleRecipe(epochs=10, **settings)  # type: ignore[arg-type]

    schedule = build_schedule(recipe, steps_per_epoch=7)

    for step in range(71):
        assert schedule(step, 70) == pytest.approx(expected(step), rel=1e-15)  # type: ignore[call-arg]
