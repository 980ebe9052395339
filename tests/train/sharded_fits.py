"""Runs under every strategy on two ranks, and how far their weights are from one another."""

from collections.abc import Callable
from pathlib import Path

import torch

from addertrain.models import build_model
from addertrain.train.run import fit
from tests.ranks import on_ranks
from tests.train.small_runs import final_weights, short_recipe

ONE_EPOCH = "--schedule.epochs=1"
CLIPPED = "--optim.clip_norm=0.01"
Top1 = dict[str, dict[str, float]]
"""Of the runs by setting and strategy."""


def fit_under(strategy: str, folder: Path, *overrides: str) -> float:
    """Top-1 of a run; every rank calls this."""
    settings = (f"--train.strategy={strategy}", "--train.evaluate_uncalibrated=false", *overrides)
    return fit(short_recipe(*settings), folder).top1


def on_two_ranks(runs: Callable[[Path], Top1], folder: Path) -> tuple[Path, Top1]:
    """The folder that `runs` has filled, and its answer, on which both ranks agree."""
    first, second = on_ranks(2, runs, folder, timeout_s=170)
    assert first == second, "evaluations agree on all ranks"
    return folder, first


def apart(found: Path, expected: Path, *, prefix: str = "") -> float:
    """Distance of two runs' parameters, relative to how far the training has moved them.

    Args:
        prefix: "average/": the same of the averaged ones.
    """
    weights, others = final_weights(expected), final_weights(found)
    assert weights.keys() == others.keys()
    torch.manual_seed(0)  # train.seed
    start = dict(build_model("lenet5bn", kind="adder", num_classes=10).named_parameters())
    moved, parted = (
        torch.cat([(weights[prefix + name].double() - values.double()).flatten() for name, values in base])
        for base in (start.items(), [(name, others[prefix + name]) for name in start])
    )
    return (parted.norm() / moved.norm()).item()
