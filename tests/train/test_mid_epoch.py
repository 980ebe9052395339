"""Checkpoints in the middle of an epoch are exact."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from addertrain.checkpoint.files import read_manifest
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory
from tests.ranks import on_ranks
from tests.train.small_runs import (
    assert_resumed_exactly,
    assert_same_bits,
    final_weights,
    launched,
    rewind,
    saves_of,
    short_recipe,
)


class Killed(Exception):
    """Stands for a kill right after a save."""


class SaveAndDie(Callback):
    """Saves after the step `at_step` and ends the run."""

    def __init__(self, at_step: int) -> None:
        self._at_step = at_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self._at_step:
            saves_of(trainer).save(trainer, pl_module)
            raise Killed


def _fit_until(run: Path, step: int) -> None:
    with pytest.raises(Killed):
        fit(short_recipe(), run, callbacks=[SaveAndDie(step)])


@pytest.mark.parametrize("step", [1, 4, 5, 8])
def test_a_resumption_in_mid_epoch_is_exact(finished: Path, tmp_path: Path, step: int) -> None:
    run = tmp_path / "run"
    _fit_until(run, step)
    manifest = read_manifest(RunDirectory(run).store.newest_first()[0])
    assert (manifest["epoch"] * 5 + manifest["batches"], manifest["global_step"]) == (step, step)

    summary = fit(short_recipe(), run)

    assert_same_bits(final_weights(run), final_weights(finished))
    assert summary.steps == 15


def test_the_epochs_training_score_is_whole(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(short_recipe(), tmp_path / "whole")
    whole = [line.split("val")[0] for line in capsys.readouterr().out.splitlines()[1:]]
    _fit_until(tmp_path / "run", 8)
    capsys.readouterr()

    fit(short_recipe(), tmp_path / "run")

    assert [line.split("val")[0] for line in capsys.readouterr().out.splitlines()[1:]] == whole[1:]


# What keeps a state of its own, or changes with the step, epoch or sample; the step to go on from, in the
# second epoch of five steps.
OPTIONS = (
    "--train.accumulate=2", "--train.ema_decay=0.9",
    "--schedule.name=step", "--schedule.step_epochs=1", "--schedule.step_factor=0.5",
    "--schedule.warmup_epochs=1.2", "--optim.clip_norm=2.0",
    "--optim.label_smoothing=0.1", "--model.input_gradient=sign", "--distill.teacher=twin",
)  # fmt: skip
MIXED = ("--data.augmentation=crop_flip", "--data.mixup=0.3", "--data.cutmix=0.3", "--data.randaugment=6")
CASES: dict[str, tuple[int, tuple[str, ...]]] = {
    "options": (8, OPTIONS),
    "mixtures": (7, (*MIXED, "--train.precision=bf16-mixed", "--train.evaluate_uncalibrated=false")),
    "half precision": (
        6,
        (
            "--train.precision=fp16-mixed", "--train.accumulate=4", "--schedule.name=polynomial",
            "--schedule.power=2", "--schedule.warmup_epochs=0.4", "--train.recalibrate_batches=0",
        ),
    ),
}  # fmt: skip


def _whole_and_resumed(folder: Path, step: int, *words: str) -> None:
    """A run that saves at `step`, and one that goes on from there, as if the rest had been lost."""
    recipe = short_recipe("--schedule.epochs=2", f"--train.save_every_steps={step}", *words)
    fit(recipe, folder / "whole")
    if not dist.is_initialized() or dist.get_rank() == 0:
        shutil.copytree(folder / "whole", folder / "resumed")
        rewind(folder / "resumed", to_step=step)
    if dist.is_initialized():
        dist.barrier()
    fit(recipe, folder / "resumed")


@pytest.mark.parametrize("name", CASES)
def test_every_option_is_resumed_exactly_in_mid_epoch(tmp_path: Path, name: str) -> None:
    step, words = CASES[name]

    _whole_and_resumed(tmp_path, step, *words)

    manifest = read_manifest(tmp_path / "whole" / "checkpoints" / f"epoch_0001_step_{step:06d}")
    assert manifest["batches"] > 0
    assert_resumed_exactly(tmp_path / "resumed", tmp_path / "whole")


def _on_rank(folder: Path) -> None:
    launched()
    _whole_and_resumed(folder, *CASES["options"][:1], *OPTIONS, *MIXED, "--train.sync_batchnorm=true")


def test_two_ranks_resume_every_option_in_mid_epoch(tmp_path: Path) -> None:
    on_ranks(2, _on_rank, tmp_path)

    assert_resumed_exactly(tmp_path / "resumed", tmp_path / "whole")
