"""A training of seconds with everything that has a state: two layers, three epochs of six batches, no recipe.

The checkpoints in tests/train/old_checkpoints were written by this training, as it was in the versions that
their folders name. Its network is smooth, so that another order of sums stays rounding.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from addertrain.checkpoint.store import CheckpointStore
from addertrain.recipe import TrainRecipe
from addertrain.train.callbacks.averaging import WeightAverage
from addertrain.train.callbacks.clock import DataWait, RunClock
from addertrain.train.callbacks.evaluation import RecalibratedEvaluation
from addertrain.train.callbacks.guard import FiniteGuard
from addertrain.train.callbacks.meter import TrainMeter
from addertrain.train.callbacks.saving import SaveCheckpoints
from addertrain.train.lightning_settings import silence_lightning
from addertrain.train.module import AdderClassifier
from addertrain.train.processes import World
from addertrain.train.signals import SignalWatch
from addertrain.train.strategies.checkpoint_io import DirectoryCheckpointIO
from addertrain.train.strategies.choice import trainer_settings
from tests.train.load_matrix import SmoothNet
from tests.train.small_runs import OPTIM, random_loader

EPOCHS, BATCHES = 3, 6
OLD = Path(__file__).parent / "old_checkpoints"


class SignalInSecondEvaluation(Callback):
    """Asks the training to leave before the second evaluation's first batch; comes before what saves."""

    def on_validation_start(self, trainer: Trainer, *_: object) -> None:
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def stateful_callbacks(
    folder: Path,
    signals: SignalWatch,
    *,
    clock: type[RunClock] = RunClock,
    meter: type[TrainMeter] = TrainMeter,
    guard: type[FiniteGuard] = FiniteGuard,
    saves: type[SaveCheckpoints] = SaveCheckpoints,
    every_steps: int | None = 1,
) -> list[Callback]:
    """What a run's training has that keeps a state, in a run's order."""
    average = WeightAverage(0.9)
    times, saving = clock(), saves(CheckpointStore(folder), keep=99, every_steps=every_steps, signals=signals)
    return [
        times,
        meter(times, DataWait()),
        average,
        RecalibratedEvaluation(None, weights=average.whole),
        guard(saving),
        saving,
    ]


def train(
    callbacks: Sequence[Callback], *, source: Path | None = None, precision: str = "fp32", accumulate: int = 1
) -> Trainer:
    """Trains to the end, from the beginning or from the checkpoint `source`."""
    silence_lightning()
    torch.manual_seed(0)
    module = AdderClassifier(
        SmoothNet(), mean=(0.5,), std=(0.3,), optim=OPTIM, num_steps=EPOCHS * BATCHES // accumulate
    )
    settings: dict[str, Any] = trainer_settings(
        TrainRecipe(precision=precision),
        World(),
        DirectoryCheckpointIO(),  # type: ignore[arg-type]
    )
    trainer = Trainer(
        **settings, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, inference_mode=False,
        use_distributed_sampler=False, callbacks=list(callbacks), max_epochs=EPOCHS,
        accumulate_grad_batches=accumulate, limit_train_batches=BATCHES,
    )  # fmt: skip
    loaders = random_loader(training=True), random_loader(32, training=False)
    trainer.fit(module, *loaders, ckpt_path=str(source) if source else None)
    return trainer
