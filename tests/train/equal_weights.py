"""Hashes of what short runs leave, to show that a change of the code changed no bit of a training.

    python -m tests.train.equal_weights > FILE      # at one commit, and at another: compare the two files

A row for {1, 2 ranks} x {ddp, zero2, zero3, fsdp} x every entry of FEATURES: the summary's `weights_sha256`,
top-1, and a hash of every tensor of the last checkpoint, momentum and averages too. They are equal only on
one processor, with the same versions.
"""

import argparse
import hashlib
import math
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from addertrain.train.module import AdderClassifier
from addertrain.train.run import fit
from tests.ranks import on_ranks
from tests.train.small_runs import final_weights, launched, short_recipe

STRATEGIES = ("ddp", "zero2", "zero3", "fsdp")
FEATURES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "bf16": ("--train.precision=bf16-mixed",),
    "fp16": ("--train.precision=fp16-mixed",),
    "accumulated": ("--train.accumulate=2",),
    "clipped": ("--optim.clip_norm=0.01",),
    "averaged": ("--train.ema_decay=0.9",),
    "mixup": ("--data.mixup=0.2",),
    "rolled back": ("--train.on_nonfinite=rollback", "--train.save_every_steps=2"),
    "signal": ("--train.save_every_steps=3",),
}
_ALL = ("--schedule.epochs=2",)
_BAD_STEP, _SIGNAL_STEP = 4, 7  # of ten, five an epoch


def main() -> None:
    """Prints the table, a row at a time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--features", nargs="+", default=list(FEATURES), choices=FEATURES)
    arguments = parser.parse_args()
    for world_size in arguments.ranks:
        for feature in arguments.features:
            with tempfile.TemporaryDirectory() as folder:
                rows = on_ranks(world_size, run_feature, feature, Path(folder), timeout_s=600.0)[0]
            print("\n".join(f"{world_size}  {feature:<12}  {row}" for row in rows), flush=True)


def run_feature(feature: str, folder: Path) -> list[str]:
    """On a rank: one run under every strategy, and what it left."""
    launched()
    rows = []
    for strategy in STRATEGIES:
        recipe = short_recipe(*_ALL, *FEATURES[feature], f"--train.strategy={strategy}")
        with _disturbed(feature):
            summary = _finished(recipe, folder / strategy)
        tensors = _sha256(final_weights(folder / strategy))
        rows.append(f"{strategy:<6}  {summary.weights_sha256}  {summary.top1:.4f}  {tensors[:16]}")
    return rows


def _finished(recipe: Any, folder: Path) -> Any:
    """The summary of a run that a signal may interrupt once."""
    try:
        return fit(recipe, folder)
    except RuntimeError as error:
        if type(error).__name__ != "SavedAfterSignal":
            raise
    return fit(recipe, folder)


@contextmanager
def _disturbed(feature: str) -> Iterator[None]:
    """Has the last rank meet a gradient that is NaN, or a signal, once, in one step."""
    if feature not in ("rolled back", "signal"):
        yield
        return
    learn, steps = AdderClassifier.learn, 0

    def disturbed(self: AdderClassifier, batch: Any) -> Any:
        nonlocal steps
        logits, loss = learn(self, batch)
        steps += 1
        if dist.get_rank() == dist.get_world_size() - 1:
            if feature == "rolled back" and steps == _BAD_STEP:
                logits.register_hook(lambda gradient: gradient * math.nan)
            if feature == "signal" and steps == _SIGNAL_STEP:
                os.kill(os.getpid(), signal.SIGUSR1)
        return logits, loss

    AdderClassifier.learn = disturbed  # type: ignore[method-assign]
    try:
        yield
    finally:
        AdderClassifier.learn = learn  # type: ignore[method-assign]


def _sha256(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
