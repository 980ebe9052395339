"""Curves of several seeds as one: the mean, and the band between the lowest and the highest seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from addertrain.report.runs import Run
from addertrain.report.style import Axes

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Mean, lowest and highest value of `n` runs at `epochs`."""

    epochs: Values
    mean: Values
    lowest: Values
    highest: Values
    n: int


def trajectory(runs: Sequence[Run], tag: str) -> Trajectory | None:
    """The curves `tag` of some seeds of one recipe, where all of them have a point; None without a point.

    The place of a point is its step in epochs.
    """
    curves = [
        dict(zip(run.curves[tag].steps, run.curves[tag].values, strict=True))
        for run in runs
        if tag in run.curves
    ]
    steps_per_epoch = next((run.steps_per_epoch for run in runs if run.steps_per_epoch), None)
    if not curves or steps_per_epoch is None:
        return None
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    if not steps:
        return None
    values = np.array([[curve[step] for step in steps] for curve in curves])
    epochs = np.array(steps) / steps_per_epoch
    return Trajectory(epochs, values.mean(0), values.min(0), values.max(0), len(curves))


def by_epoch(line: Trajectory) -> Trajectory:
    """The median over each epoch, at its end, of a curve with several points an epoch."""
    ends = np.ceil(line.epochs - 1e-9)
    at = [ends == end for end in np.unique(ends)]
    mean, lowest, highest = (
        np.array([np.median(values[here]) for here in at])
        for values in (line.mean, line.lowest, line.highest)
    )
    return Trajectory(np.unique(ends), mean, lowest, highest, line.n)


def draw(axes: Axes, line: Trajectory, *, color: str, dash: str = "-", label: str) -> None:
    """The mean as a line in the band of the seeds; a single point as a dot."""
    marker = "o" if len(line.epochs) == 1 else None
    axes.plot(line.epochs, line.mean, dash, color=color, label=label, marker=marker)
    if line.n > 1:
        axes.fill_between(line.epochs, line.lowest, line.highest, color=color, alpha=0.2, linewidth=0)
