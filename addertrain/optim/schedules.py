"""Learning-rate schedules: pure functions of the step, as factors of the recipe's rate gamma."""

import math
from collections.abc import Callable

Schedule = Callable[[int, int], float]
"""(step, num_steps) -> factor of the rate with which update number `step`, counted from 0, is made."""


def cosine(step: int, num_steps: int) -> float:
    """Half a cosine, once per step: (1 + cos(pi * step / num_steps)) / 2.

    1 at step 0, exactly 0 at `num_steps` and after it.

    Raises:
        ValueError: if `num_steps` is not positive or `step` is negative.
    """
    if num_steps < 1 or step < 0:
        raise ValueError(
            f"cosine: expected step >= 0 and num_steps >= 1, got step={step}, num_steps={num_steps}."
        )
    return 0.5 * (1.0 + math.cos(math.pi * min(step, num_steps) / num_steps))


SCHEDULES: dict[str, Schedule] = {"cosine": cosine}
