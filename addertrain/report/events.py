"""The curves of a run, without the points that a resumption declared void."""

import logging
from dataclasses import dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from addertrain.errors import RunError

_ALL = {"scalars": 0, "images": 1, "histograms": 1, "tensors": 1, "audio": 1, "compressedHistograms": 1}


@dataclass(frozen=True)
class Curve:
    """Values by optimizer step."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


def read_curves(run: Path) -> dict[str, Curve]:
    """Every curve of scalars by its tag; empty if nothing has been logged.

    Raises:
        RunError: event files cannot be read.
    """
    if not any(run.glob("events.out.tfevents.*")):
        return {}
    # It reports every file that it opens, and every point that it drops.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = EventAccumulator(str(run), size_guidance=_ALL)
    try:
        events.Reload()
    except Exception as error:  # tensorboard has no error of its own
        reason = str(error) or type(error).__name__
        raise RunError(
            f"{run}: expected readable TensorBoard event files, got: {reason}; remove the damaged file"
        ) from None
    curves = {}
    for tag in events.Tags()["scalars"]:
        points = events.Scalars(tag)
        curves[tag] = Curve(
            tuple(point.step for point in points), tuple(float(point.value) for point in points)
        )
    return curves
