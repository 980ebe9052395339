"""Curves for TensorBoard, written by the first rank to the run directory, and to your own loggers.

Loss, accuracy, γ, images/s and the fraction of time spent waiting for data, and for every adder layer l of
optimizer: α_l, ‖g_l‖ and RMS(w). `accuracy/val_top1` is the accuracy that is reported: with averaged weights
if there are any, and recalibrated statistics; `accuracy/val_top1_uncalibrated` is without recalibration.
Every ten epochs it writes images of the network's inputs, after augmentation. A resumption declares the
points beyond its checkpoint void. `report` leaves them out; the program `tensorboard` also draws them, unless
it is started with `--load_fast=false`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from torch import Tensor

from addertrain.optim import AdderOptimizer
from addertrain.optim.squares import sums_of_squares
from addertrain.train.batches import LabelledImages
from addertrain.train.callbacks.evaluation import RecalibratedEvaluation
from addertrain.train.callbacks.event_file import EventFile
from addertrain.train.callbacks.guard import FiniteGuard
from addertrain.train.callbacks.meter import TrainMeter, Window
from addertrain.train.module import AdderClassifier

_PICTURES_EVERY_EPOCHS = 10
_FAULTS = ("faults/skipped_steps", "faults/rollbacks")
_GRID_SIDE = 4  # images in a row and in a column


class TensorBoard(Callback):
    """Writes a point when `meter` has closed a window, and one per evaluation.

    Args:
        evaluation: gives the time of recalibration, and the accuracy without it.
        guard: gives the numbers of numerical faults; a point is written when they change.
        warn: receives one line if curves cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        meter: TrainMeter,
        evaluation: RecalibratedEvaluation | None = None,
        guard: FiniteGuard | None = None,
        *,
        warn: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._meter, self._evaluation = meter, evaluation
        self._guard = guard
        self._faults: dict[str, float] = {}
        self._warn = warn
        self._writer: EventFile | None = None
        self._loggers: list[Logger] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens an event file; a resumed run declares later points of earlier files void."""
        if trainer.is_global_zero:
            # A count that a killed session wrote would stand for ever: a later session writes its own.
            is_first = not any(self._folder.glob("events.out.tfevents.*"))
            self._faults = dict.fromkeys(_FAULTS, 0) if is_first else {}
            # Always: a session that was killed before its first checkpoint may have left points.
            self._writer = EventFile(self._folder, first_step=trainer.global_step + 1, warn=self._warn)
            self._loggers = trainer.loggers

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: LabelledImages, batch_idx: int
    ) -> None:
        """Writes images of the first batch of some epochs, as the network sees them."""
        if (
            self._writer is not None
            and batch_idx == 0
            and trainer.current_epoch % _PICTURES_EVERY_EPOCHS == 0
        ):
            # The number of the next step, so that a run resumed before it writes them again.
            self._writer.add_picture("images/train", picture_grid(batch.images), trainer.global_step + 1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a window's points, with one host sync for all layers together."""
        if self._writer is None:
            return
        self._write_faults(trainer.global_step)
        window = self._meter.window
        if window is None:
            return
        optimizer = trainer.optimizers[0]
        self._write(window_scalars(window, optimizer.param_groups[0]["lr"]), trainer.global_step)
        if isinstance(optimizer, AdderOptimizer):
            self._write(layer_scalars(optimizer), trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the evaluation and flushes everything, because a checkpoint of this step follows."""
        assert isinstance(pl_module, AdderClassifier)
        if self._writer is None:
            return
        if (score := pl_module.val_score) is not None:
            points = {
                "loss/val": score.loss,
                "accuracy/val_top1": score.top1,
                "accuracy/val_top5": score.top5,
            }
            self._write(points | self._statistics(), trainer.global_step)
        if (score := self._meter.epoch) is not None:
            self._write(
                {"loss/train_epoch": score.loss, "accuracy/train_epoch": score.top1}, trainer.global_step
            )
        self._writer.flush()
        self._writer.reopen(first_step=trainer.global_step + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the file."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Closes the file, to keep what has been written."""
        self._close()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Flushes points that a run resumed from this checkpoint will not write again."""
        if self._writer is not None:
            self._writer.flush()

    def _write_faults(self, step: int) -> None:
        if self._guard is None:
            return
        counts = (self._guard.skipped_steps, self._guard.rollbacks)
        now: dict[str, float] = dict(zip(_FAULTS, counts, strict=True))
        self._write({tag: count for tag, count in now.items() if count != self._faults.get(tag)}, step)
        self._faults = now

    def _statistics(self) -> dict[str, float]:
        """The effect of recalibration on the last evaluation."""
        if self._evaluation is None:
            return {}
        points = {"speed/recalibration_seconds": self._evaluation.seconds}
        if (score := self._evaluation.uncalibrated_score) is not None:
            points |= {"loss/val_uncalibrated": score.loss, "accuracy/val_top1_uncalibrated": score.top1}
        return points

    def _write(self, points: dict[str, float], step: int) -> None:
        assert self._writer is not None
        self._writer.add_points(points, step)
        for logger in self._loggers if points else ():
            logger.log_metrics(points, step=step)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def picture_grid(images: Tensor) -> Tensor:
    """The first 16 images (N, C, H, W) in rows of four, (C, rows * H, 4 * W), uint8."""
    shown = images[: _GRID_SIDE**2].cpu()
    rows = -(-len(shown) // _GRID_SIDE)
    N, C, H, W = shown.shape
    grid = shown.new_zeros(rows * _GRID_SIDE, C, H, W)
    grid[:N] = shown
    return grid.view(rows, _GRID_SIDE, C, H, W).permute(2, 0, 3, 1, 4).reshape(C, rows * H, _GRID_SIDE * W)


def window_scalars(window: Window, lr: float) -> dict[str, float]:
    """A window's points; `lr` is γ of the next step."""
    return {
        "loss/train": window.score.loss,
        "accuracy/train_top1": window.score.top1,
        "speed/images_per_second": window.images_per_second,
        "speed/data_wait": window.data_wait,
        "schedule/lr": lr,
    }


@torch.no_grad()
def layer_scalars(optimizer: AdderOptimizer) -> dict[str, float]:
    """α_l, ‖g_l‖ and RMS(w) of every adder layer after the last step; one host sync.

    RMS(w) is left out if filters are sharded, because gathering them needs all ranks.
    """
    names = optimizer.layer_names
    if not names:
        return {}
    kinds = {"alr_alpha": optimizer.last_rates, "grad_norm": optimizer.last_sq_norms.sqrt()}
    if filters := optimizer.whole_filters:
        kinds["weight_rms"] = weight_rms(filters)
    rows = torch.stack([values.to(optimizer.last_rates.device) for values in kinds.values()]).tolist()
    return {
        f"{kind}/{name}": value
        for kind, row in zip(kinds, rows, strict=True)
        for name, value in zip(names, row, strict=True)
    }


def weight_rms(filters: Sequence[Tensor]) -> Tensor:
    """RMS(w) of every adder layer, [L] in fp32."""
    squares = sums_of_squares(filters)
    numel = torch.tensor([weight.numel() for weight in filters], device=squares.device)
    return (squares / numel).sqrt().float()
