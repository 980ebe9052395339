"""Which random states a resumption would need: none, so checkpoints hold none.

Order, augmentation, mixup and cutmix count from (seed, epoch, sample). This holds the rest of training to
drawing nothing from torch's, NumPy's and Python's global generators.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from addertrain.train.run import fit
from tests.train.small_runs import short_recipe


class Generators(Callback):
    """Notes the states of all global generators at the ends of training."""

    def __init__(self) -> None:
        self.states: list[tuple[Any, ...]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.states.append(_states())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.states.append(_states())


def _states() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 (the global one is what is watched)
    return torch.get_rng_state().tolist(), (kind, keys.tolist(), *rest), random.getstate()


@pytest.mark.parametrize(
    "settings",
    [
        ["--train.ema_decay=0.9", "--data.mixup=0.2", "--data.cutmix=1.0", "--data.randaugment=5"],
        ["--distill.teacher=twin", "--data.augmentation=crop_flip"],
    ],
    ids=["mixed", "distilled"],
)
def test_training_draws_from_no_global_generator(settings: list[str], tmp_path: Path) -> None:
    generators = Generators()

    fit(short_recipe("--schedule.epochs=1", *settings), tmp_path / "run", callbacks=[generators])

    before, after = generators.states
    assert before == after
