"""Learning-rate schedules: pure functions of the step, as factors of the recipe's rate gamma."""

import math
from collections.abc import Callable
from functools import partial

from addertrain.recipe import ScheduleRecipe

Schedule = Callable[[int, int], float]
"""(step, num_steps) -> factor of the rate with which update number `step`, counted from 0, is made."""


def cosine(step: int, num_steps: int) -> float:
    """Half a cosine, once per step: (1 + cos(pi * step / num_steps)) / 2.

    1 at step 0, exactly 0 at `num_steps` and after it.

    Raises:
        ValueError: if `num_steps` is not positive or `step` is negative.
    """
    _check_steps("cosine", step, num_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(step, num_steps) / num_steps))


def polynomial(step: int, num_steps: int, *, power: float = 1.0) -> float:
    """(1 - step / num_steps) ^ power: 1 at step 0, exactly 0 at `num_steps` and after it.

    Raises:
        ValueError: as `cosine`.
    """
    _check_steps("polynomial", step, num_steps)
    return (1.0 - min(step, num_steps) / num_steps) ** power


def stepwise(step: int, num_steps: int, *, every: int, factor: float) -> float:
    """factor ^ floor(step / every): falls at once every `every` steps and never reaches 0.

    Raises:
        ValueError: as `cosine`.
    """
    _check_steps("stepwise", step, num_steps)
    return factor ** (step // every)


def warmed_up(step: int, num_steps: int, *, warmup_steps: int, after: Schedule) -> float:
    """Linear warm-up, (step + 1) / (warmup_steps + 1), then `after` over the remaining steps.

    The first step has a small rate above 0, and step number `warmup_steps` has the full rate.

    Raises:
        ValueError: as `cosine`; also if the warm-up leaves no step.
    """
    _check_steps("warmed_up", step, num_steps)
    if not 0 <= warmup_steps < num_steps:
        raise ValueError(
            f"warmed_up: expected a warm-up shorter than the schedule's {num_steps} steps, got "
            f"{warmup_steps}; shorten it, or train longer."
        )
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return after(step - warmup_steps, num_steps - warmup_steps)


def lowered_power(step: int, num_steps: int, *, start: float) -> float:
    """The power p of step number `step`: linearly from `start` in step 0 to exactly 1 in the last of
    `num_steps` steps, and after it.

    Raises:
        ValueError: as `cosine`.
    """
    _check_steps("lowered_power", step, num_steps)
    return 1.0 if num_steps == 1 else 1.0 + (start - 1.0) * polynomial(step, num_steps - 1)


SCHEDULES: dict[str, Schedule] = {"cosine": cosine, "polynomial": polynomial}
"""Those that need no more than the number of steps; `build_schedule` knows the recipe's others too."""


def build_schedule(settings: ScheduleRecipe, *, steps_per_epoch: int) -> Schedule:
    """The schedule of a recipe, whose own lengths are in epochs."""
    falling: Schedule
    if settings.name == "step":
        every = settings.step_epochs * steps_per_epoch
        falling = partial(stepwise, every=every, factor=settings.step_factor)
    elif settings.name == "polynomial":
        falling = partial(polynomial, power=settings.power)
    else:
        falling = cosine
    warmup_steps = round(settings.warmup_epochs * steps_per_epoch)
    return partial(warmed_up, warmup_steps=warmup_steps, after=falling) if warmup_steps else falling


def _check_steps(name: str, step: int, num_steps: int) -> None:
    if num_steps < 1 or step < 0:
        raise ValueError(
            f"{name}: expected step >= 0 and num_steps >= 1, got step={step}, num_steps={num_steps}."
        )
