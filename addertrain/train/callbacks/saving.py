"""Decides when a checkpoint is written and which ones are kept; a thread writes them.

The next save, the end of training, a signal and an error wait until the thread has finished.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from addertrain.checkpoint.background import BackgroundWriter
from addertrain.checkpoint.retention import Retention
from addertrain.checkpoint.store import CheckpointStore
from addertrain.errors import CheckpointError, SavedAfterSignal
from addertrain.train.agreement import Agreement
from addertrain.train.callbacks.stateful import StatefulCallback
from addertrain.train.classification_counts import Score
from addertrain.train.loop_state import between_steps, position_of
from addertrain.train.module import AdderClassifier
from addertrain.train.output import warn
from addertrain.train.processes import on_first_rank
from addertrain.train.signals import SignalWatch


class SaveCheckpoints(StatefulCallback):
    """Saves after every epoch, and within epochs by steps, by time, or when a signal ends the run.

    Keeps the last `keep` checkpoints and the one with the best top-1 accuracy. The trainer's strategy has to
    be one of `train.strategies` over a `DirectoryCheckpointIO`. It has to be the last callback, so that the
    states of the others are complete when it saves.

    Args:
        every_steps, every_minutes: the steps or minutes between two saves within an epoch; None does not save
            by them.
        signals: the signals received; a signal to one rank makes all ranks save and raise `SavedAfterSignal`.
        on_failure: is called on every rank when a save has failed, and training then continues; None stops
            it. A failure of the last save, or of one for a signal, always stops training.
        timeout_s: how long ranks wait for one of them.
    """

    state_name = "best"

    def __init__(
        self,
        store: CheckpointStore,
        *,
        keep: int,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        signals: SignalWatch | None = None,
        on_failure: Callable[[CheckpointError], None] | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        self.store = store
        self.keep = keep
        self.every_steps = every_steps
        self.every_seconds = None if every_minutes is None else 60 * every_minutes
        self.signals = signals or SignalWatch()
        self.on_failure = on_failure
        self.timeout_s = timeout_s
        self.newest: Path | None = None
        """The last checkpoint that is complete on disk; at first the one from which the session resumed."""
        self.best: str | None = None
        self.best_top1: float | None = None
        self._best_before: tuple[str | None, float | None] = (None, None)
        self._writer = BackgroundWriter()
        self._retention = Retention(store, keep)
        self._pending: Path | None = None
        self._is_leaving = self._is_evaluation_left = False
        self._agreement: Agreement | None = None
        self._saved_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock between saves."""
        self._agreement = Agreement(num_flags=3, timeout_s=self.timeout_s)
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves between two steps if a save is due, on all ranks or none.

        Raises:
            SavedAfterSignal: a rank got a signal; all of them have saved.
        """
        if not between_steps(trainer):
            return
        is_due, has_failed = self._wishes(trainer)
        if has_failed:
            self.finish()
        # An epoch's evaluation follows its last step, and its own save that.
        if trainer.is_last_batch:
            return
        if self._is_leaving:
            self.save(trainer, pl_module)
            self._leave(trainer)
        if is_due or (self.every_steps is not None and trainer.global_step % self.every_steps == 0):
            self.save(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves before an evaluation begins; see `on_validation_batch_start`."""
        self._leave_evaluation_if_asked(trainer)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Leaves during an evaluation, which a resumed run repeats completely.

        Raises:
            SavedAfterSignal: a rank got a signal; all of them save in `on_exception`.
        """
        self._wishes(trainer)
        self._leave_evaluation_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves; the evaluation of this epoch has ended.

        Raises:
            SavedAfterSignal: a rank got a signal near the end of the evaluation.
        """
        self.save(trainer, pl_module, score=_score_of(pl_module))
        if self._is_leaving:
            self._leave(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Waits for the last save and the last exchange between the ranks."""
        self.finish(is_last=True)
        if self._agreement is not None:
            self._agreement.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Saves if an evaluation was left; other callbacks have restored the live network.

        After any other error it waits for a save in progress, without asking other ranks, which may have
        ended.
        """
        if self._is_evaluation_left:
            self.save(trainer, pl_module)
            self._finish_together(trainer)
            return
        self._writer.is_in_a_hurry = True
        try:
            self._writer.finish()
        except CheckpointError as error:
            warn(str(error))

    def save(self, trainer: Trainer, module: LightningModule, *, score: Score | None = None) -> None:
        """Takes a checkpoint now, which has to be `between_steps`; every rank has to call it. It is complete
        on disk, and named by `latest`, when `finish` has returned.

        Args:
            score: the score of these weights, if they were evaluated.
        """
        assert between_steps(trainer), "gradients of a step that is not made yet would be lost"
        self.finish()
        path = self._path(trainer)
        self._best_before = (self.best, self.best_top1)
        if score is not None and score.top1 > (-1.0 if self.best_top1 is None else self.best_top1):
            self.best, self.best_top1 = path.name, score.top1
        trainer.save_checkpoint(path, storage_options=self._writer)
        if trainer.is_global_zero:
            best = self.best
            self._writer.add(lambda: self._publish(path, best))
        self._pending = path
        self._saved_at = time.monotonic()

    def finish(self, *, is_last: bool = False) -> None:
        """Waits until the last `save` is on disk; every rank has to call it.

        Raises:
            CheckpointError: it failed, and there is no `on_failure` or it `is_last`.
        """
        if self._pending is None:
            return
        path, self._pending = self._pending, None
        try:
            on_first_rank(self._writer.finish)
            self.newest = path
        except CheckpointError as error:
            self.best, self.best_top1 = self._best_before
            if is_last or self.on_failure is None:
                raise CheckpointError(f"{error}; fix this, and the same command resumes from them") from None
            self.on_failure(error)

    def kept_state(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        """The best checkpoint so far."""
        return {"checkpoint": self.best, "top1": self.best_top1}

    def take_up(self, state: dict[str, Any]) -> None:
        """Loads the best checkpoint so far."""
        self.best, self.best_top1 = state["checkpoint"], state["top1"]

    def _path(self, trainer: Trainer) -> Path:
        position = position_of(trainer)
        return self.store.path_for(epoch=position.epoch, global_step=position.global_step)

    def _is_late(self) -> bool:
        return self.every_seconds is not None and time.monotonic() - self._saved_at >= self.every_seconds

    def _publish(self, path: Path, best: str | None) -> None:
        try:
            self.store.publish(path)
            self._retention.prune(path, best=best)
        except OSError as error:
            raise CheckpointError(
                f"{path.name} is saved, but could not be given its name in {self.store.folder}: {error}; it "
                "and the earlier checkpoints are intact"
            ) from None

    def _wishes(self, trainer: Trainer) -> tuple[bool, bool]:
        """Whether a save is due and whether one has failed; records that the run has to end."""
        assert self._agreement is not None
        # Clocks differ between ranks: the first one's counts.
        is_due, shall_leave, has_failed = self._agreement.exchange(
            trainer.is_global_zero and self._is_late(),
            self.signals.received is not None,
            self._writer.has_failed,
        )
        self._is_leaving |= shall_leave
        return is_due, has_failed

    def _leave_evaluation_if_asked(self, trainer: Trainer) -> None:
        if self._is_leaving:
            self._is_evaluation_left = True
            raise self._farewell(trainer)

    def _leave(self, trainer: Trainer) -> None:
        self._finish_together(trainer)
        raise self._farewell(trainer)

    def _farewell(self, trainer: Trainer) -> SavedAfterSignal:
        name = self._path(trainer).name
        return SavedAfterSignal(
            f"saved {name} after {self.signals.reason}; the same command will resume from it"
        )

    def _finish_together(self, trainer: Trainer) -> None:
        self.finish(is_last=True)
        # The first rank cleans up after a save; no rank may end before that, because the launcher would end
        # all.
        trainer.strategy.barrier()
        self.signals.is_answered = True


def _score_of(module: LightningModule) -> Score | None:
    """The evaluation that has just ended."""
    return module.val_score if isinstance(module, AdderClassifier) else None
