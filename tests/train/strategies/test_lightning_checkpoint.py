"""Lightning's dictionary becomes ours and comes back: held against what the installed version saves."""

import copy
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.amp import GradScaler
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, StepLR

from addertrain.train.signals import SignalWatch
from addertrain.train.strategies.lightning_checkpoint import (
    named_schedule,
    optimizer_of,
    scheduler_state,
    to_lightning,
    to_ours,
)
from addertrain.train.strategies.precision import LossScale, named_scale, scaler_state
from tests.train.tiny_training import stateful_callbacks, train


class Capture(Callback):
    """Keeps what Lightning has collected at the end of the second epoch, the trainer and our translation."""

    def __init__(self) -> None:
        self.theirs: dict[str, Any] = {}
        self.ours: dict[str, Any] = {}
        self.back: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"kept": 1}

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.current_epoch == 1:
            checkpoint["mine"] = 2
            self.theirs = checkpoint
            self.ours = to_ours(checkpoint, trainer)
            self.back = to_lightning({**self.ours, "rank_buffers": []}, trainer)


def _captured(folder: Path, precision: str = "fp32") -> Capture:
    """Captured last, when every callback has left its state."""
    capture = Capture()
    train([*stateful_callbacks(folder, SignalWatch(), every_steps=None), capture], precision=precision)
    return capture


def test_every_entry_has_a_place_in_ours(tmp_path: Path) -> None:
    """An entry that a new Lightning adds would show up among those of others."""
    ours = _captured(tmp_path).ours

    assert set(ours) == {"model", "optimizer", "average", "position", "state", "foreign"}
    assert set(ours["state"]) == {"loader", "schedule", "clock", "counts", "best", "faults"}
    assert ours["foreign"] == {"callbacks": {"Capture": {"kept": 1}}, "entries": {"mine": 2}}


def test_what_comes_back_is_what_lightning_saved(tmp_path: Path) -> None:
    capture = _captured(tmp_path, precision="fp16-mixed")
    theirs, back = dict(capture.theirs), dict(capture.back)

    assert set(back) - set(theirs) == {"rank_buffers"}
    assert set(theirs) <= set(back)
    (scheduler,), (rebuilt,) = theirs.pop("lr_schedulers"), back.pop("lr_schedulers")
    assert rebuilt.items() <= scheduler.items()
    assert back["state_dict"] is theirs["state_dict"]
    assert back["optimizer_states"] == theirs["optimizer_states"]
    # The loops are test_loop_state's; Lightning counts this epoch only after its end.
    apart = {
        "loops",
        "epoch",
        "state_dict",
        "optimizer_states",
        "average",
        "addertrain_states",
        "rank_buffers",
    }
    assert {key: back[key] for key in set(back) - apart} == {key: theirs[key] for key in set(theirs) - apart}
    assert theirs["addertrain_states"].items() <= back["addertrain_states"].items()


def _schedule() -> LambdaLR:
    return LambdaLR(SGD(nn.Linear(2, 2).parameters(), lr=0.5), lambda step: 0.9**step)


def test_a_schedule_goes_on_as_if_it_had_not_stopped() -> None:
    running, resumed = _schedule(), _schedule()
    for _ in range(3):
        running.optimizer.step()
        running.step()

    resumed.load_state_dict(scheduler_state(named_schedule(running.state_dict())))

    assert resumed.state_dict() == running.state_dict()


def test_another_schedule_is_refused() -> None:
    scheduler = StepLR(SGD(nn.Linear(2, 2).parameters(), lr=0.5), 3)

    with pytest.raises(ValueError, match="expected the schedule of an AdderClassifier"):
        named_schedule(scheduler.state_dict())


def test_two_optimizers_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one optimizer, got 2; train with one"):
        optimizer_of({"optimizer_states": [{}, {}]})


def test_a_loss_scale_goes_by_our_names_and_back() -> None:
    torchs, engines = GradScaler("cpu").state_dict(), LossScale().state_dict()

    assert set(torchs) == set(engines)
    named = named_scale(copy.deepcopy(torchs))
    assert scaler_state(named) == torchs
    assert not [name for name in named if name.startswith("_")]
