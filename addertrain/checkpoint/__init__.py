"""Checkpoints on the disk: one directory (`files`), and all those of a run (`store`). Knows no trainer."""

from addertrain.errors import CheckpointError

__all__ = ["CheckpointError"]
