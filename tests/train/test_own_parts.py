"""Callbacks and loggers that a user hands to `fit`: where they stand, what they get, what is kept of them."""

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from addertrain.checkpoint.files import read_manifest
from addertrain.errors import GoBack, UsageError
from addertrain.train.callbacks.clipping import ClipNorm
from addertrain.train.callbacks.guard import FiniteGuard
from addertrain.train.callbacks.saving import SaveCheckpoints
from addertrain.train.callbacks.tensorboard import TensorBoard
from addertrain.train.own_parts import OwnParts
from addertrain.train.processes import World
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory
from tests.ranks import on_ranks
from tests.train.small_runs import ReadEvery, assert_same_bits, final_weights, launched, rewind, short_recipe


class Counting(Callback):
    """Counts the steps of a run over all its sessions, and this session's evaluations."""

    def __init__(self) -> None:
        self.num_steps = self.num_evaluations = 0
        self.kinds: list[type] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.kinds = list(map(type, trainer.callbacks))  # type: ignore[attr-defined]

    def on_train_batch_end(self, *_: object) -> None:
        self.num_steps += 1

    def on_validation_end(self, *_: object) -> None:
        self.num_evaluations += 1

    def state_dict(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_steps = state_dict["num_steps"]


class KeepsArray(Callback):
    """Its state is none that a checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]:
        return {"best": np.zeros(2)}


class Listed(Logger):
    """Keeps what it is given."""

    name = "listed"
    version = 0

    def __init__(self) -> None:
        super().__init__()
        self.points: dict[str, list[tuple[int | None, float]]] = {}
        self.settings: dict[str, Any] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for tag, value in metrics.items():
            self.points.setdefault(tag, []).append((step, value))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        self.settings |= dict(params) if isinstance(params, dict) else vars(params)


def test_a_callback_follows_the_step_and_precedes_its_save(tmp_path: Path) -> None:
    counting = Counting()

    fit(short_recipe("--schedule.epochs=1", "--optim.clip_norm=9"), tmp_path / "run", callbacks=[counting])

    place = counting.kinds.index(Counting)
    assert counting.kinds[place + 1] is SaveCheckpoints
    assert {FiniteGuard, ClipNorm, TensorBoard} <= set(counting.kinds[:place])
    assert counting.num_evaluations == 2, "the epoch's, and the one that the summary quotes"


def test_state_goes_into_checkpoints_and_comes_back(finished: Path, tmp_path: Path) -> None:
    run, counting = tmp_path / "run", Counting()
    fit(short_recipe("--train.save_every_steps=2"), run, callbacks=[Counting()])
    rewind(run, to_step=8)
    assert_state(run, "epoch_0001_step_000008", 8)

    fit(short_recipe(), run, callbacks=[counting])

    assert counting.num_steps == 15
    assert_state(run, "epoch_0003_step_000015", 15)
    assert_same_bits(final_weights(run), final_weights(finished))
    told: list[str] = []
    OwnParts.checked(recipe := short_recipe(), [counting]).compare(newest_of(run), told.append)
    assert told == []
    OwnParts.checked(recipe).compare(newest_of(run), told.append)
    assert len(told) == 1
    assert f"holds the state of {__name__}:Counting, which is not in callbacks now" in told[0]


def newest_of(run: Path) -> Path:
    return RunDirectory(run).store.newest_first()[0]


def assert_state(run: Path, checkpoint: str, num_steps: int) -> None:
    manifest = read_manifest(run / "checkpoints" / checkpoint)
    assert manifest["foreign"]["callbacks"]["Counting"] == {"num_steps": num_steps}


class GoesBack(Callback):
    """Sends the run back to its beginning, once."""

    has_gone_back = False

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == 2 and not self.has_gone_back:
            self.has_gone_back = True
            raise GoBack("of this test's", rollbacks=1)


def test_a_run_that_goes_back_to_its_beginning_takes_the_callbacks_along(tmp_path: Path) -> None:
    counting = Counting()

    summary = fit(short_recipe("--schedule.epochs=1"), tmp_path / "run", callbacks=[counting, GoesBack()])

    assert (summary.rollbacks, summary.steps, counting.num_steps) == (1, 5, 5)


def test_a_logger_gets_the_curves_and_the_recipe(finished: Path, tmp_path: Path) -> None:
    run, listed, csv = tmp_path / "run", Listed(), CSVLogger(str(tmp_path / "csv"))
    recipe = short_recipe()

    fit(recipe, run, callbacks=[ReadEvery(2), LearningRateMonitor()], loggers=[listed, csv])

    events = EventAccumulator(str(run)).Reload()
    for tag in events.Tags()["scalars"]:
        curve = [(point.step, pytest.approx(point.value, rel=1e-6)) for point in events.Scalars(tag)]
        assert listed.points[tag] == curve, tag
    assert {"train_loss", "lr", "val_loss", "val_top1", "val_top5", "lr-AdderSGD/pg1"} <= set(listed.points)
    assert listed.settings["optim"]["lr"] == recipe.optim.lr
    assert "accuracy/val_top1" in next((tmp_path / "csv").rglob("metrics.csv")).read_text()
    assert_same_bits(final_weights(run), final_weights(finished))


def _logged(folder: Path) -> list[str]:
    launched()
    listed = Listed()
    words = ("--schedule.epochs=1", "--train.recalibrate_batches=0", "--train.evaluate_uncalibrated=false")
    fit(short_recipe(*words), folder, callbacks=[LearningRateMonitor()], loggers=[listed])
    return sorted(listed.points)


def test_other_ranks_hold_silent_loggers() -> None:
    """Callbacks such as LearningRateMonitor ask for a logger on every rank."""
    own, recipe = OwnParts.checked(short_recipe(), loggers=[listed := Listed()]), short_recipe()

    loggers = [own.logging(recipe, World(rank=rank, size=2), every_steps=5)["logger"] for rank in (0, 1)]

    assert loggers[0] == [listed]
    assert len(loggers[1]) == 1
    loggers[1][0].log_metrics({"loss": 1.0}, step=1)
    assert listed.points == {}
    assert OwnParts().logging(recipe, World(), every_steps=5) == {"logger": False}


@pytest.mark.long
@pytest.mark.distributed
def test_the_first_rank_alone_logs(tmp_path: Path) -> None:
    first, second = on_ranks(2, _logged, tmp_path / "run")

    assert "val_top1" in first
    assert second == []


def test_lightnings_own_callbacks_read_the_metrics(tmp_path: Path) -> None:
    stopping = EarlyStopping("val_top1", mode="max", stopping_threshold=10.0)

    summary = fit(short_recipe(), tmp_path / "run", callbacks=[stopping])

    assert summary.epochs == 1


@pytest.mark.parametrize(
    ("callbacks", "loggers", "message"),
    [
        ([ModelCheckpoint()], [], "expected no ModelCheckpoint in callbacks, got one; fit saves"),
        ([TQDMProgressBar()], [], "expected no TQDMProgressBar in callbacks, got one; fit reports"),
        ([Counting], [], "Callback objects, got the class Counting; call it: Counting"),
        (Counting(), [], "callbacks as a list of lightning.pytorch Callback objects, got Counting"),
        ([KeepsArray()], [], r"KeepsArray: state_dict\(\)\.best: expected numbers, .*, got ndarray; store"),
        ([], ["wandb"], "loggers as a list of lightning.pytorch Logger objects, got str"),
        ([Counting(), Counting()], [], "got 'Counting' 2 times; override the property state_key"),
    ],
)
def test_what_a_run_cannot_use_is_one_line(
    callbacks: Iterable[Any], loggers: Iterable[Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        fit(short_recipe(), tmp_path / "run", callbacks=callbacks, loggers=loggers)
