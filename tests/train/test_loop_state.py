"""The counters that `loop_state` builds are those that the installed Lightning would have saved."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from addertrain.errors import SavedAfterSignal
from addertrain.train.loop_state import Position, loader_of, loops_at, position_of
from addertrain.train.signals import SignalWatch
from tests.train.tiny_training import BATCHES, SignalInSecondEvaluation, stateful_callbacks, train

VALIDATION = "epoch_loop.val_loop.batch_progress"


class Watch(Callback):
    """Notes, wherever checkpoints are taken, where the training stands and what its loops would save."""

    def __init__(self) -> None:
        self.seen: list[tuple[Position, dict[str, Any]]] = []

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.seen.append((position_of(trainer), checkpoint["loops"]))


def _watched(folder: Path, *, accumulate: int = 1, signals: SignalWatch | None = None) -> Watch:
    """A training that saves between any two steps, or, with `signals`, after epochs and in an evaluation."""
    watch, every = Watch(), None if signals else 1
    folder.mkdir(exist_ok=True)
    callbacks = [watch, *stateful_callbacks(folder, signals or SignalWatch(), every_steps=every)]
    if signals is None:
        train(callbacks, accumulate=accumulate)
        return watch
    with signals, pytest.raises(SavedAfterSignal):
        train([SignalInSecondEvaluation(), *callbacks], accumulate=accumulate)
    return watch


def _compare(position: Position, loops: dict[str, Any]) -> None:
    built, theirs = loops_at(position, loader_of(loops)), loops
    assert built.keys() == theirs.keys()
    ours, fit = dict(built["fit_loop"]), dict(theirs["fit_loop"])
    counters = ours.pop(VALIDATION), fit.pop(VALIDATION)
    assert ours == fit, position
    # Lightning reads an evaluation's counters only where one was left; their structure counts elsewhere.
    assert [set(each["total"]) for each in counters] == [set(counters[0]["current"])] * 2
    assert counters[0].keys() == counters[1].keys()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_loops_counters_are_lightnings(tmp_path: Path, accumulate: int) -> None:
    watch = _watched(tmp_path, accumulate=accumulate)

    assert len(watch.seen) == 18 // accumulate
    for position, loops in watch.seen:
        _compare(position, loops)


def test_an_evaluation_that_was_left_is_due(tmp_path: Path) -> None:
    end_of_epoch, left = _watched(tmp_path, signals=SignalWatch()).seen

    assert left[0] == Position(1, BATCHES, 2 * BATCHES, BATCHES, is_evaluation_due=True)
    assert end_of_epoch[0] == Position(1, 0, BATCHES, BATCHES)
    for position, loops in (end_of_epoch, left):
        _compare(position, loops)
    begun = loops_at(left[0], None)["fit_loop"][VALIDATION]["total"]
    assert (begun["started"], begun["processed"]) == (1, 0)


def test_the_very_beginning_has_no_step_behind_it() -> None:
    fit_loop = loops_at(Position(0, 0, 0, BATCHES), None)["fit_loop"]

    assert set(fit_loop["epoch_progress"]["total"].values()) == {0}
    assert fit_loop["epoch_loop.state_dict"] == {"_batches_that_stepped": 0}
    assert not fit_loop["epoch_loop.batch_progress"]["is_last_batch"]


def test_the_first_epochs_position_needs_no_number_of_batches() -> None:
    """Checkpoints of formats 1 and 2 do not say it there."""
    position = Position(0, 3, 3, BATCHES)

    assert loops_at(replace(position, batches_per_epoch=None), None) == loops_at(position, None)
