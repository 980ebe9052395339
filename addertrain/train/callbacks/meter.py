"""Measures loss, accuracy and speed of training, read from the device every few steps."""

from dataclasses import asdict, dataclass
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from addertrain.train.callbacks.clock import DataWait, RunClock
from addertrain.train.callbacks.stateful import StatefulCallback
from addertrain.train.classification_counts import Score, Totals
from addertrain.train.module import AdderClassifier


@dataclass(frozen=True)
class Window:
    """The steps since the last reading, over all ranks; `data_wait`: the fraction of time spent waiting
    for data.
    """

    score: Score
    images_per_second: float
    data_wait: float


class TrainMeter(StatefulCallback):
    """Reads an `AdderClassifier`'s counts every `every_steps` steps, with one host sync.

    After those steps `window` holds the reading, None after all others; `epoch` is the score of the last
    complete epoch. Callbacks that use them have to come later in the trainer's list.
    """

    state_name = "counts"

    def __init__(self, clock: RunClock, data_wait: DataWait, *, every_steps: int = 20) -> None:
        self.every_steps = every_steps
        self.window: Window | None = None
        self.epoch: Score | None = None
        self._clock, self._data_wait = clock, data_wait
        self._at_window = self._at_epoch = Totals()
        self._train_seconds = self._wait_seconds = 0.0
        self._last_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the first window."""
        self._train_seconds, self._wait_seconds = self._clock.train_seconds, self._data_wait.seconds
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Closes a window if one ends."""
        self.window = None
        has_stepped, self._last_step = trainer.global_step > self._last_step, trainer.global_step
        if has_stepped and trainer.global_step % self.every_steps == 0:
            self.window = self._close_window(totals_of(pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the epoch's score."""
        now = totals_of(pl_module)
        self.epoch, self._at_epoch = (now - self._at_epoch).score(), now

    def kept_state(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        """The counts of an unfinished epoch."""
        return asdict(totals_of(module) - self._at_epoch)

    def take_up(self, state: dict[str, Any]) -> None:
        """Continues the counts of an unfinished epoch."""
        self._at_epoch = Totals() - Totals(**state)

    def _close_window(self, now: Totals) -> Window:
        train_seconds, wait_seconds = self._clock.train_seconds, self._data_wait.seconds
        seconds = max(train_seconds - self._train_seconds, 1e-9)
        score = (now - self._at_window).score()
        window = Window(
            score=score,
            images_per_second=score.num_images / seconds,
            data_wait=(wait_seconds - self._wait_seconds) / seconds,
        )
        self._at_window, self._train_seconds, self._wait_seconds = now, train_seconds, wait_seconds
        return window


def totals_of(module: LightningModule) -> Totals:
    """The counts of `module` in training in this session, over all ranks."""
    assert isinstance(module, AdderClassifier)
    return Totals() if module.train_counts is None else module.train_counts.totals()
