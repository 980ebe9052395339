"""Shows the progress of a run: a bar over the complete run on a terminal, otherwise a line per epoch."""

import os
import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from addertrain.train.callbacks.clock import RunClock
from addertrain.train.callbacks.meter import TrainMeter
from addertrain.train.module import AdderClassifier
from addertrain.train.output import ForgivingStream, say


class Progress(Callback):
    """Reports on the first rank; it has to come after `meter` in the trainer's list."""

    def __init__(self, meter: TrainMeter, clock: RunClock, *, is_terminal: bool | None = None) -> None:
        self._meter, self._clock = meter, clock
        self._is_terminal = has_terminal() if is_terminal is None else is_terminal
        self._bar: tqdm[Any] | None = None
        self._first_batch = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the bar; a resumed run starts where it was."""
        self._first_batch = trainer.global_step * trainer.accumulate_grad_batches
        if self._is_terminal and trainer.is_global_zero:
            self._bar = tqdm(
                total=_num_batches(trainer, int(trainer.max_epochs or 0)),
                initial=self._first_batch,
                unit="batch",
                dynamic_ncols=True,
                smoothing=0.05,
                file=ForgivingStream(sys.stderr),
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar."""
        if self._bar is None:
            return
        if (window := self._meter.window) is not None:
            self._describe(trainer, pl_module, window.score.loss, window.images_per_second)
        self._bar.update()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the epoch's line if there is no bar."""
        if self._bar is None and trainer.is_global_zero:
            say(self._line(trainer, pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the bar and leaves it on the screen."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ends the bar's line, so that the error gets its own."""
        self._close()

    def _describe(self, trainer: Trainer, module: LightningModule, loss: float, speed: float) -> None:
        assert self._bar is not None
        self._bar.set_description_str(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", refresh=False
        )
        top1 = _val_top1(module)
        val = f"val {top1:.2f} %, " if top1 is not None else ""
        self._bar.set_postfix_str(f"loss {loss:.3f}, {val}{speed:.0f} images/s", refresh=False)

    def _line(self, trainer: Trainer, module: LightningModule) -> str:
        epoch, num_epochs = trainer.current_epoch + 1, int(trainer.max_epochs or 0)
        done, total = _num_batches(trainer, epoch), _num_batches(trainer, num_epochs)
        left = self._clock.seconds_left(
            batches=total - done, evaluations=num_epochs - epoch, done=done, done_before=self._first_batch
        )
        score = self._meter.epoch
        trained = f"loss {score.loss:.4f}  train {score.top1:6.2f} %  " if score else ""
        top1 = _val_top1(module)
        val = f"val {top1:6.2f} %  " if top1 is not None else ""
        speed = f"{self._speed(trainer):.0f} images/s"
        return (
            f"epoch {epoch:{len(str(num_epochs))}}/{num_epochs}  {trained}{val}{speed}  {duration(left)} left"
        )

    def _speed(self, trainer: Trainer) -> float:
        """Images per second of this epoch."""
        score = self._meter.epoch
        seconds = self._clock.epoch_seconds
        return score.num_images / seconds if score and seconds > 0 else 0.0

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _num_batches(trainer: Trainer, num_epochs: int) -> int:
    return int(trainer.num_training_batches) * num_epochs


def _val_top1(module: LightningModule) -> float | None:
    score = module.val_score if isinstance(module, AdderClassifier) else None
    return score.top1 if score is not None else None


def has_terminal() -> bool:
    """Whether stderr is a terminal that a bar can be drawn on; some have no width."""
    try:
        return ForgivingStream(sys.stderr).isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False


def duration(seconds: float) -> str:
    """A readable duration: "42 s", "3 min 05 s", "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
