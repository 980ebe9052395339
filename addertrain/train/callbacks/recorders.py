"""TensorBoard and profiler callbacks, imported where they are used because each import takes a second."""

from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import Callback

from addertrain.train.callbacks.evaluation import RecalibratedEvaluation
from addertrain.train.callbacks.guard import FiniteGuard
from addertrain.train.callbacks.meter import TrainMeter
from addertrain.train.processes import World


def records(
    folder: Path,
    world: World,
    meter: TrainMeter,
    evaluation: RecalibratedEvaluation,
    guard: FiniteGuard,
    *,
    profile: bool,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> list[Callback]:
    """TensorBoard's writer on the first rank; the profiler on every rank if it was requested.

    Args:
        folder: the run directory.
        evaluation: the callback whose evaluations are recorded.
        say: receives one line on what the profiler has written.
        warn: receives one line if curves cannot be written.
    """
    found: list[Callback] = []
    if world.is_first:
        from addertrain.train.callbacks.tensorboard import TensorBoard

        found.append(TensorBoard(folder, meter, evaluation, guard, warn=warn))
    if profile:
        from addertrain.train.callbacks.profiling import StepProfile

        found.append(StepProfile(folder / "profile", world, say=say))
    return found
