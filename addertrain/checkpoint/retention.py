"""Which of a run's checkpoints stay: the last whole ones and the best, whatever lies beside them."""

import shutil
from pathlib import Path

from addertrain.checkpoint.files import verify_checkpoint
from addertrain.checkpoint.store import CheckpointStore, step_of
from addertrain.durable import hidden_name
from addertrain.errors import CheckpointError


class Retention:
    """Keeps the last `keep` whole checkpoints of a run, and the best one.

    What this session has saved is whole; what earlier ones left is compared with its checksums, once.
    """

    def __init__(self, store: CheckpointStore, keep: int) -> None:
        self._store = store
        self._keep = max(keep, 1)
        self._is_whole: dict[str, bool] = {}

    def prune(self, saved: Path, *, best: str | None) -> None:
        """Removes what `saved`, the newest one, makes superfluous, and what dead processes left.

        A checkpoint of a later step stays where it is and counts for nothing: the run did not go on from it,
        so it is damaged, or somebody put it there.
        """
        self._is_whole[saved.name] = True
        num_kept = 0
        for path in self._store.newest_first():
            if step_of(path) > step_of(saved):
                continue
            if num_kept < self._keep:
                num_kept += self._check(path)
            elif path.name != best:
                # Out of sight first: a removal that dies half-way must not leave half a checkpoint under a
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
