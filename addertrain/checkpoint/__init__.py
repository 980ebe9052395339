"""Checkpoints on the disk: one directory (`files`), and all those of a run (`store`). Knows no trainer."""
