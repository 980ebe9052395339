"""Ends the last evaluation of a run when a signal arrives, between two batches and on all ranks."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from addertrain.errors import SavedAfterSignal
from addertrain.train.agreement import Agreement
from addertrain.train.signals import SignalWatch


class LeaveEvaluation(Callback):
    """For an evaluation outside a training: there is nothing to save, because `checkpoint` is on disk.

    Every rank has to see as many batches as the others.

    Raises:
        SavedAfterSignal: from the trainer's `validate`; a rank got a signal.
    """

    def __init__(self, signals: SignalWatch, checkpoint: Path, *, timeout_s: float) -> None:
        self._signals, self._checkpoint, self._timeout_s = signals, checkpoint, timeout_s
        self._agreement: Agreement | None = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exchanges whether a signal has arrived before."""
        self._agreement = Agreement(num_flags=1, timeout_s=self._timeout_s)
        self._leave_if_asked()

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Leaves if a rank got a signal before the previous batch."""
        self._leave_if_asked()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets the last exchange between the ranks end."""
        assert self._agreement is not None
        self._agreement.close()

    def _leave_if_asked(self) -> None:
        assert self._agreement is not None
        (shall_leave,) = self._agreement.exchange(self._signals.received is not None)
        if shall_leave:
            self._signals.is_answered = True
            raise SavedAfterSignal(
                f"{self._checkpoint.name} is saved, but {self._signals.reason} ended its evaluation; the "
                "same command will evaluate it"
            )
