"""Where an export is written: the whole file or none, and errors of the disk in one line."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from addertrain.checkpoint.files import MANIFEST
from addertrain.durable import replacing
from addertrain.errors import InterchangeError


@contextlib.contextmanager
def exported(path: str | Path) -> Iterator[Path]:
    """The name to write under; when the block has ended, that file replaces the one at `path`.

    Raises:
        InterchangeError: the folder is missing or is a checkpoint, `path` is a folder, or the disk takes no
            more.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InterchangeError(
            f"{target}: expected the folder {target.parent} to write into, got none; make it"
        )
    if (target.parent / MANIFEST).exists():
        raise InterchangeError(
            f"{target}: expected a folder of your own to write into, got a checkpoint, whose files have "
            "checksums; choose another"
        )
    if target.is_dir():
        raise InterchangeError(f"{target}: expected the name of a file to write, got a folder")
    try:
        with replacing(target) as temporary:
            yield temporary
    except OSError as error:
        raise InterchangeError(
            f"{target}: expected to write it, got: {error.strerror or error}; an earlier file is unchanged"
        ) from None
