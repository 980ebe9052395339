"""Checkpoints in the middle of an epoch are exact."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer

from addertrain.checkpoint.files import read_manifest
from addertrain.train import run as run_module
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory
from addertrain.train.saving import SaveCheckpoints
from tests.ranks import on_ranks
from tests.train.small_runs import assert_same_bits, final_weights, launched, short_recipe


class Killed(Exception):
    """Stands for a kill right after a save."""


class SaveAndDie(SaveCheckpoints):
    """Saves after the step `at_step` and ends the run."""

    at_step = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.at_step:
            self.save(trainer, pl_module)
            raise Killed


def _fit_until(run: Path, step: int) -> None:
    ordinary = run_module.SaveCheckpoints
    SaveAndDie.at_step = step
    run_module.SaveCheckpoints = SaveAndDie  # type: ignore[misc]
    try:
        with pytest.raises(Killed):
            fit(short_recipe(), run)
    finally:
        run_module.SaveCheckpoints = ordinary  # type: ignore[misc]


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


def _interrupted_on_ranks(run: Path) -> None:
    launched()
    _fit_until(run, 8)


def _fit_on_ranks(run: Path) -> None:
    launched()
    fit(short_recipe(), run)


def test_two_ranks_resume_in_mid_epoch(tmp_path: Path) -> None:
    on_ranks(2, _fit_on_ranks, tmp_path / "whole")
    on_ranks(2, _interrupted_on_ranks, tmp_path / "run")

    on_ranks(2, _fit_on_ranks, tmp_path / "run")

    assert_same_bits(final_weights(tmp_path / "run"), final_weights(tmp_path / "whole"))
