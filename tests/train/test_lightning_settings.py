"""No variable of another tool's users reaches a training or an evaluation."""

import inspect
import os
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from addertrain.train.lightning_settings import every_argument
from addertrain.train.run import evaluate, fit
from tests.train.small_runs import assert_same_bits, final_weights, short_recipe

VARIABLES = {
    "PL_TRAINER_LIMIT_VAL_BATCHES": "1",
    "PL_TRAINER_FAST_DEV_RUN": "1",
    "PL_TRAINER_MAX_STEPS": "2",
    "PL_TRAINER_OVERFIT_BATCHES": "1",
    "PL_TRAINER_GRADIENT_CLIP_VAL": "0.001",
    "PL_TRAINER_CHECK_VAL_EVERY_N_EPOCH": "5",
    "PL_TRAINER_PRECISION": "bf16-mixed",
}


def test_every_argument_is_given_and_as_it_was() -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(Trainer).parameters.items()}

    assert every_argument(max_epochs=3, logger=False) == defaults | {"max_epochs": 3, "logger": False}


def test_an_argument_that_lightning_does_not_have_is_noticed() -> None:
    with pytest.raises(AssertionError, match="max_epoch"):
        every_argument(max_epoch=3)


def test_an_allocation_of_several_tasks_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "NTASKS": "4",
        "JOB_ID": "1",
        "JOB_NAME": "job",
        "NNODES": "2",
        "PROCID": "0",
        "LOCALID": "0",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)

    fit(short_recipe("--schedule.epochs=1"), tmp_path / "run")

    assert evaluate(tmp_path / "run").num_images == 360
    assert os.environ["SLURM_NTASKS"] == "4"


def test_variables_change_neither_training_nor_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = short_recipe("--schedule.epochs=1")
    plain = fit(recipe, tmp_path / "plain")
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)

    summary = fit(recipe, tmp_path / "run")

    assert (summary.steps, summary.top1, summary.loss) == (5, plain.top1, plain.loss)
    assert_same_bits(final_weights(tmp_path / "run"), final_weights(tmp_path / "plain"))
    assert evaluate(tmp_path / "run").num_images == 360
