"""Keeps a checkpoint from being removed while it is read.

A run in progress removes old checkpoints when it saves new ones. Hard links to the files, in a hidden folder
next to the checkpoint, keep them as long as they are needed and take no space.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from addertrain.checkpoint.store import checkpoints_of, locate_checkpoint
from addertrain.durable import hidden_name
from addertrain.errors import CheckpointError


@dataclass(frozen=True)
class Held:
    """A checkpoint's own path, and a folder of the same name that holds its files while it is read."""

    checkpoint: Path
    files: Path


@contextlib.contextmanager
def held_checkpoint(path: Path, warn: Callable[[str], None]) -> Iterator[Held]:
    """What `locate_checkpoint` finds, held for as long as the block lasts.

    If links cannot be made (no permission, or a file system without them), the checkpoint is not held.

    Raises:
        CheckpointError: there is no usable checkpoint.
    """
    with contextlib.ExitStack() as links:
        yield _held(path, warn, links)


def _held(path: Path, warn: Callable[[str], None], links: contextlib.ExitStack) -> Held:
    while True:
        seen = _names(path)
        try:
            checkpoint = locate_checkpoint(path, warn)
            return Held(checkpoint, _linked(checkpoint, links))
        except (CheckpointError, FileNotFoundError):
            if _names(path) == seen:  # nobody removes them: they are damaged, or not there
                raise


def _names(path: Path) -> list[str]:
    """The checkpoints that `path` has now."""
    try:
        return [checkpoint.name for checkpoint in checkpoints_of(path)]
    except (CheckpointError, FileNotFoundError):
        return []


def _linked(checkpoint: Path, links: contextlib.ExitStack) -> Path:
    """A folder of links to the files of a checkpoint, which `links` removes.

    Raises:
        FileNotFoundError: the checkpoint has just been removed.
    """
    folder = hidden_name(checkpoint, "tmp")
    links.callback(shutil.rmtree, folder, ignore_errors=True)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / checkpoint.name).mkdir(parents=True)
        for file in checkpoint.iterdir():
            os.link(file, folder / checkpoint.name / file.name)
    except FileNotFoundError:
        raise
    except OSError:
        return checkpoint
    return folder / checkpoint.name
