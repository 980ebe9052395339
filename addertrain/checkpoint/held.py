"""A checkpoint that stays while it is read, whatever the run that wrote it does meanwhile.

A run in progress removes checkpoints as it saves new ones. Links to a checkpoint's files, under a hidden name
beside it, keep them for as long as they are needed and take no room.
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
    """A checkpoint by its own name, and a folder of the same last name that holds its files meanwhile."""

    checkpoint: Path
    files: Path


@contextlib.contextmanager
def held_checkpoint(path: Path, warn: Callable[[str], None]) -> Iterator[Held]:
    """What `locate_checkpoint` finds, held for as long as the block lasts.

    Where no links can be made (a folder of somebody else's, a file system without them) it is not held.

    Raises:
        CheckpointError: there is none that can be used.
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
