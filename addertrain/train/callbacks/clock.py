"""Measures the time of a run: training, waiting for data, and everything else; kept when a run resumes."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.profilers import Profiler

from addertrain.train.callbacks.stateful import StatefulCallback
from addertrain.train.lightning_internals import NEXT_BATCH


class DataWait(Profiler):
    """Adds up the seconds in which the training loop waits for its loader."""

    _nothing = nullcontext()

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._since = 0.0

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Lightning wraps each of some fifty hooks a step in this; a generator would cost 0.2 ms a step."""
        return self._nothing

    def start(self, action_name: str) -> None:
        """Called before Lightning asks a loader for a batch."""
        if action_name.endswith(NEXT_BATCH):
            self._since = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Called when the batch has arrived."""
        if action_name.endswith(NEXT_BATCH):
            self.seconds += time.perf_counter() - self._since

    def summary(self) -> str:
        """Prints nothing at the end."""
        return ""


class RunClock(StatefulCallback):
    """Seconds spent in training steps and in the whole run, over all its sessions."""

    state_name = "clock"

    def __init__(self) -> None:
        self._epoch_began = 0.0
        self._trained = 0.0
        self._training_since: float | None = None
        self._earlier = 0.0
        self._session_start = time.perf_counter()
        self._trained_before = 0.0
        self._evaluated = 0.0
        self._evaluating_since: float | None = None
        self._num_evaluations = 0

    @property
    def train_seconds(self) -> float:
        """Seconds in training steps, without evaluation and saving."""
        running = 0.0 if self._training_since is None else time.perf_counter() - self._training_since
        return self._trained + running

    @property
    def epoch_seconds(self) -> float:
        """Seconds in training steps of the current epoch, or of the last one between two."""
        return self.train_seconds - self._epoch_began

    @property
    def seconds(self) -> float:
        """Seconds of the whole run so far."""
        return self._earlier + time.perf_counter() - self._session_start

    def seconds_left(self, *, batches: int, evaluations: int, done: int, done_before: int) -> float:
        """An estimate of the seconds that remain, at this session's speed, without start-up and saving.

        Args:
            batches, evaluations: the numbers that remain.
            done, done_before: batches trained on so far, and those before this session.
        """
        seconds, batches_so_far = self.train_seconds - self._trained_before, done - done_before
        if batches_so_far == 0:  # a run that left in an evaluation came back to that alone
            seconds, batches_so_far = self.train_seconds, max(1, done)
        evaluation = self._evaluated / max(1, self._num_evaluations)
        return batches * seconds / batches_so_far + evaluations * evaluation

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock; a resumed run may begin in mid-epoch."""
        self._trained_before = self._trained
        self._training_since = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._epoch_began = self.train_seconds
        self._training_since = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock, because evaluation is not training."""
        self._pause()
        self._evaluating_since = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continues the clock."""
        self._training_since = time.perf_counter()
        if self._evaluating_since is not None:
            self._evaluated += self._training_since - self._evaluating_since
            self._num_evaluations += 1
            self._evaluating_since = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._pause()

    def kept_state(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        """Seconds so far."""
        return {
            "train_seconds": self.train_seconds,
            "epoch_seconds": self.epoch_seconds,
            "seconds": self.seconds,
        }

    def take_up(self, state: dict[str, Any]) -> None:
        """Continues from the seconds of earlier sessions."""
        self._trained, self._earlier = state["train_seconds"], state["seconds"]
        self._epoch_began = self._trained - state["epoch_seconds"]

    def _pause(self) -> None:
        self._trained, self._training_since = self.train_seconds, None
