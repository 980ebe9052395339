"""Decides when a checkpoint is written and which ones stay."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from addertrain.train.checkpoint_io import POSITION
from addertrain.train.checkpoint_store import CheckpointStore
from addertrain.train.module import AdderClassifier


class SaveCheckpoints(Callback):
    """Saves after every epoch; keeps the last `keep` checkpoints and the one with the best top-1 accuracy.

    The trainer's strategy has to be one of `strategies.py` over a `DirectoryCheckpointIO`. Give this callback
    last: what others hold in their state is then complete when it saves.
    """

    def __init__(self, store: CheckpointStore, *, keep: int) -> None:
        self.store = store
        self.keep = keep
        self.best: str | None = None
        self.best_top1: float | None = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves; the evaluation of this epoch is over by now."""
        self.save(trainer, pl_module)

    def save(self, trainer: Trainer, module: LightningModule) -> None:
        """Writes a checkpoint of this moment, which has to be `between_steps`; every rank has to call it."""
        assert between_steps(trainer), "gradients of a step that is not made yet would be lost"
        position = position_of(trainer)
        path = self.store.path_for(epoch=position["epoch"], global_step=position["global_step"])
        score = module.val_score if isinstance(module, AdderClassifier) else None
        if score is not None and score.top1 > (-1.0 if self.best_top1 is None else self.best_top1):
            self.best, self.best_top1 = path.name, score.top1
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            self.store.publish(path)
            self.store.prune(keep=self.keep, best=self.best)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds where the run stands, in words that need no knowledge of Lightning's loops."""
        checkpoint[POSITION] = position_of(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The best checkpoint so far."""
        return {"best": self.best, "best_top1": self.best_top1}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the best checkpoint so far."""
        self.best, self.best_top1 = state_dict["best"], state_dict["best_top1"]


def position_of(trainer: Trainer) -> dict[str, int]:
    """Whole epochs, batches of the current epoch that are trained on, and optimizer steps."""
    loop = trainer.fit_loop
    epoch = loop.epoch_progress.state_dict()["current"]["processed"]
    trained = loop.epoch_loop.batch_progress.state_dict()["total"]["processed"]
    batches = trained - epoch * int(trainer.num_training_batches)
    return {"epoch": epoch, "batches": batches, "global_step": trainer.global_step}


def between_steps(trainer: Trainer) -> bool:
    """Whether every batch so far has gone into a step; false between the parts of a batch."""
    return position_of(trainer)["batches"] % trainer.accumulate_grad_batches == 0
