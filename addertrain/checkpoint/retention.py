"""Which checkpoints of a run are kept: the last intact ones and the best one."""

import shutil
from pathlib import Path

from addertrain.checkpoint.files import verify_checkpoint
from addertrain.checkpoint.store import CheckpointStore, step_of
from addertrain.durable import hidden_name
from addertrain.errors import CheckpointError


class Retention:
    """Keeps the last `keep` intact checkpoints of a run, and the best one.

    Checkpoints of this session are known to be intact; those of earlier sessions are compared with their
    checksums once.
    """

    def __init__(self, store: CheckpointStore, keep: int) -> None:
        self._store = store
        self._keep = max(keep, 1)
        self._is_whole: dict[str, bool] = {}

    def prune(self, saved: Path, *, best: str | None) -> None:
        """Removes checkpoints that are no longer kept after `saved`, the newest, and files of dead processes.

        A checkpoint of a later step is left alone and not counted: the run did not resume from it, so it is
        damaged or was put there by hand.
        """
        self._is_whole[saved.name] = True
        num_kept = 0
        for path in self._store.newest_first():
            if step_of(path) > step_of(saved):
                continue
            if num_kept < self._keep:
                num_kept += self._check(path)
            elif path.name != best:
                # Rename it first: an interrupted removal must not leave an incomplete checkpoint under a
                # valid name.
                shutil.rmtree(path.rename(hidden_name(path, "old")), ignore_errors=True)
        self._store.sweep()

    def _check(self, path: Path) -> bool:
        if path.name not in self._is_whole:
            try:
                verify_checkpoint(path)
                self._is_whole[path.name] = True
            except CheckpointError:
                self._is_whole[path.name] = False
        return self._is_whole[path.name]
