"""Checkpoints of a run of which an epoch is ten steps."""

from pathlib import Path

import torch

from addertrain.checkpoint.files import write_checkpoint
from addertrain.checkpoint.store import CheckpointStore


def save_epoch(store: CheckpointStore, epoch: int) -> Path:
    """Writes the checkpoint after so many epochs."""
    path = store.path_for(epoch=epoch, global_step=10 * epoch)
    tensors: dict[str, dict[str, torch.Tensor]] = {
        "model": {"w": torch.ones(3)},
        "optimizer": {},
        "rank_buffers": {},
    }
    write_checkpoint(path, tensors, {"epoch": epoch, "global_step": 10 * epoch})
    return path


def five_epochs(folder: Path) -> CheckpointStore:
    """A store of the checkpoints after epochs 1 to 5."""
    store = CheckpointStore(folder)
    for epoch in range(1, 6):
        save_epoch(store, epoch)
    return store
