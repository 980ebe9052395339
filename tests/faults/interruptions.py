"""A run on several ranks, interrupted at a place that a seed chooses, and started again until it ends.

The ranks are real processes with gloo between them, forked from one that has imported all they need.
"""

import os
import random
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from addertrain.errors import SavedAfterSignal
from addertrain.nn import AdderConv2d
from addertrain.recipe import load_recipe
from addertrain.train.callbacks.guard import FiniteGuard
from addertrain.train.run import fit
from tests.faults.campaign import sha256_of_run
from tests.ranks import on_ranks
from tests.train.small_runs import launched, rewind

Interruption = Literal["end of an epoch", "mid-epoch", "kill", "signal", "rollback"]
INTERRUPTIONS: tuple[Interruption, ...] = ("end of an epoch", "mid-epoch", "kill", "signal", "rollback")
STEPS_PER_EPOCH, NUM_EPOCHS = 5, 2
NUM_STEPS = STEPS_PER_EPOCH * NUM_EPOCHS
SHORT = [
    f"--schedule.epochs={NUM_EPOCHS}",
    "--train.save_every_steps=2",
    "--train.keep_checkpoints=99",
    "--train.recalibrate_batches=0",
    "--train.evaluate_uncalibrated=false",
    "--train.on_nonfinite=rollback",
]


@dataclass(frozen=True)
class Training:
    """What runs: a recipe's file, its overrides, and on how many ranks; two epochs of five steps."""

    recipe: Path
    words: tuple[str, ...]
    num_ranks: int

    def session(self, run: Path, *events: "Event") -> str | None:
        """One start of the run: the hash over its final weights, None where something ended it early."""
        try:
            return on_ranks(self.num_ranks, _session, self, run, events, timeout_s=900)[0]
        except AssertionError:
            if not _killed(run).exists():
                raise
            return None


@dataclass(frozen=True)
class Event:
    """What happens to a rank when step `step` (from 0) is about to begin."""

    what: Literal["kill", "signal", "nan"]
    step: int
    rank: int
    signal: int = signal.SIGTERM
    delay_seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.what} of rank {self.rank} in step {self.step + 1}"


class _Events(Callback):
    """Lets them happen; a NaN in a gradient only until the run has gone back because of it."""

    def __init__(self, run: Path, events: tuple[Event, ...]) -> None:
        self._run, self._events = run, events
        self._remove: Callable[[], None] = lambda: None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        for event in self._events:
            if (event.step, event.rank) != (trainer.global_step, trainer.global_rank):
                continue
            if event.what == "signal":
                os.kill(os.getpid(), event.signal)
            elif event.what == "kill":
                threading.Timer(event.delay_seconds, self._kill).start()
            elif _guard(trainer).rollbacks == 0:
                layer = next(each for each in pl_module.modules() if isinstance(each, AdderConv2d))
                self._remove = layer.register_forward_hook(_spoil_gradient).remove

    def on_train_batch_end(self, *_: object) -> None:
        self._remove()

    def _kill(self) -> None:
        _killed(self._run).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _killed(run: Path) -> Path:
    """A file that says that a rank of the run was killed on purpose."""
    return run.with_name(f"{run.name}-killed")


def _guard(trainer: Trainer) -> FiniteGuard:
    return next(each for each in trainer.callbacks if isinstance(each, FiniteGuard))  # type: ignore[attr-defined]


def _spoil_gradient(layer: nn.Module, inputs: object, output: Tensor) -> None:
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient * float("nan"))


def _session(training: Training, run: Path, events: tuple[Event, ...]) -> str | None:
    launched()
    recipe = load_recipe(training.recipe, [*SHORT, *training.words])
    try:
        return fit(recipe, run, callbacks=[_Events(run, events)]).weights_sha256
    except SavedAfterSignal:
        return None


def left_alone(training: Training, folder: Path, *events: Event) -> tuple[Path, str]:
    """The folder of a run in one session, and the hash over its weights."""
    run = folder / ("left-alone" if not events else "left-alone-but-for-a-rollback")
    sha256 = training.session(run, *events)
    assert sha256 is not None
    return run, sha256


def interrupted(
    training: Training, folder: Path, whole: Path, interruption: Interruption, rng: random.Random
) -> tuple[str, str, str]:
    """What was done to a run, the hash that it ended with, and the one of the run that it should equal.

    Args:
        whole: the same training's run in one session.
    """
    run, expected = folder / interruption.replace(" ", "-"), sha256_of_run(whole)
    first, rank = rng.randrange(1, NUM_STEPS - 1), rng.randrange(training.num_ranks)
    events: tuple[Event, ...] = ()
    match interruption:
        case "end of an epoch":
            done = _cut_short(whole, run, STEPS_PER_EPOCH * rng.randrange(1, NUM_EPOCHS))
        case "mid-epoch":
            done = _cut_short(
                whole, run, rng.choice([k for k in range(2, NUM_STEPS) if k != STEPS_PER_EPOCH])
            )
        case "kill":
            event = Event("kill", first, rank, delay_seconds=rng.uniform(0.0, 0.03))
            done = _struck(training, run, event)
        case "signal":
            event = Event("signal", first, rank, signal=rng.choice([signal.SIGTERM, signal.SIGUSR1]))
            done = _struck(training, run, event)
        case "rollback":
            # Steps come in another order behind a rollback: equal is a run with the same fault.
            events = (Event("nan", rng.randrange(2, NUM_STEPS), rank),)
            rolled_back, expected = left_alone(training, folder, *events)
            assert expected != sha256_of_run(whole), "the fault was none"
            done = f"{events[0]}, {_cut_short(rolled_back, run, rng.randrange(2, NUM_STEPS))}"
    found = training.session(run, *events)
    assert found is not None
    return done, found, expected


def _cut_short(whole: Path, run: Path, step: int) -> str:
    """Makes `run` of `whole`, as if all processes had ended after `step`."""
    shutil.copytree(whole, run)
    rewind(run, to_step=step)
    return f"ended after step {step}"


def _struck(training: Training, run: Path, event: Event) -> str:
    assert training.session(run, event) is None, f"{event}: the run came to its end"
    _killed(run).unlink(missing_ok=True)
    return str(event)
