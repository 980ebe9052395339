"""The checkpoints of one run: their names, and which one to use; `retention` decides which are kept.

`latest` is a small file that names the newest intact checkpoint; it changes only after the checkpoint has its
final name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from addertrain.checkpoint.files import MANIFEST, verify_checkpoint
from addertrain.durable import remove_leftovers, write_text
from addertrain.errors import CheckpointError

FOLDER = "checkpoints"  # of a run directory
LATEST = "latest"
_NAME = re.compile(r"epoch_(\d+)_step_(\d+)")


@dataclass(frozen=True)
class CheckpointStore:
    """The folder `checkpoints/` of a run."""

    folder: Path

    def path_for(self, *, epoch: int, global_step: int) -> Path:
        """The final path of a checkpoint after `epoch` complete epochs and `global_step` steps."""
        return self.folder / f"epoch_{epoch:04d}_step_{global_step:06d}"

    def newest_first(self) -> list[Path]:
        """Every checkpoint, intact or not, ordered by its name, the one with the most steps first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=step_of, reverse=True)

    def newest_whole(self, warn: Callable[[str], None]) -> Path | None:
        """The newest checkpoint whose files match their checksums; None if there are no checkpoints.

        Args:
            warn: receives one line that says which checkpoint is damaged and which one is used instead.

        Raises:
            CheckpointError: there are checkpoints, and every one is damaged.
        """
        damaged: list[CheckpointError] = []
        for path in self.newest_first():
            try:
                _check_name(path, verify_checkpoint(path))
            except CheckpointError as error:
                damaged.append(error)
                continue
            for earlier in damaged:
                warn(f"damaged checkpoint {earlier}; using the earlier {path.name} instead")
            return path
        if damaged:
            raise CheckpointError(
                f"{self.folder}: expected an intact checkpoint, got only damaged ones "
                f"({'; '.join(map(str, damaged))}); start a new run with another --out, or remove the folder"
            )
        return None

    def publish(self, path: Path) -> None:
        """Makes `latest` name a checkpoint, which has to be intact."""
        write_text(self.folder / LATEST, path.name + "\n")

    def sweep(self) -> None:
        """Removes incomplete files and folders that killed processes left."""
        remove_leftovers(self.folder, f"{_NAME.pattern}|{LATEST}")


def _check_name(path: Path, manifest: Mapping[str, Any]) -> None:
    """Raises CheckpointError if a checkpoint has another's name, because the newest name could be an old
    one.
    """
    named = step_of(path)
    step = manifest.get("global_step", named[0]), manifest.get("epoch", named[1])
    if step != named:
        raise CheckpointError(
            f"{path}: expected the epoch and step in its name, got epoch {step[1]}, step {step[0]}; give it "
            "back its name"
        )


def step_of(path: Path) -> tuple[int, int]:
    """(global step, epoch) by a checkpoint's name, for sorting."""
    match = _NAME.fullmatch(path.name)
    return (int(match[2]), int(match[1])) if match else (-1, -1)


def is_checkpoint(path: Path) -> bool:
    """Whether `path` looks like one checkpoint rather than a run directory."""
    return _NAME.fullmatch(path.name) is not None or (path / MANIFEST).exists()


def checkpoints_of(path: Path) -> list[Path]:
    """The checkpoint at `path`, or all checkpoints of the run there, damaged ones too, newest first.

    Raises:
        CheckpointError: there is neither.
    """
    if not path.is_dir():
        raise CheckpointError(_expected_a_folder(path))
    found = _store_of(path).newest_first() or ([path] if is_checkpoint(path) else [])
    if not found:
        raise CheckpointError(_found_none(path))
    return found


def locate_checkpoint(path: Path, warn: Callable[[str], None]) -> Path:
    """The checkpoint at `path`, or the newest intact one of the run there, verified.

    A run may be named by its directory or by its folder of checkpoints.

    Raises:
        CheckpointError: there is no usable checkpoint.
    """
    if not path.is_dir():
        raise CheckpointError(_expected_a_folder(path))
    if is_checkpoint(path):
        verify_checkpoint(path)
        return path
    newest = _store_of(path).newest_whole(warn)
    if newest is None:
        raise CheckpointError(_found_none(path))
    return newest


def _store_of(path: Path) -> CheckpointStore:
    """The checkpoints of the run whose directory, or whose folder of checkpoints, `path` is."""
    inner = CheckpointStore(path / FOLDER)
    return inner if inner.folder.is_dir() else CheckpointStore(path)


def _expected_a_folder(path: Path) -> str:
    return f"{path}: expected the folder of a run or of a checkpoint, got {what_is(path)}; check the path"


def what_is(path: Path) -> str:
    """What a path is that is not a folder, in words for an error."""
    return "a file" if path.exists() else "nothing there"


def _found_none(path: Path) -> str:
    return f"{path}: expected a run or a checkpoint, found no checkpoints in it; check the path"
