"""Writes an exported file completely or not at all, and reports errors of the disk in one line."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from addertrain.checkpoint.files import MANIFEST
from addertrain.durable import replacing
from addertrain.errors import InterchangeError


@contextlib.contextmanager
def exported(path: str | Path) -> Iterator[Path]:
    """Yields the name to write to; when the block ends, that file replaces the one at `path`.

    Raises:
        InterchangeError: the folder is missing or is a checkpoint, `path` is a folder, or the file cannot be
            written.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InterchangeError(f"{target}: expected an existing folder {target.parent}, got none; create it")
    if (target.parent / MANIFEST).exists():
        raise InterchangeError(
            f"{target}: expected a folder that is no checkpoint, got a checkpoint, whose files have "
            "checksums; choose another folder"
        )
    if target.is_dir():
        raise InterchangeError(f"{target}: expected a file to write, got a folder; name a file in it")
    try:
        with replacing(target) as temporary:
            yield temporary
    except OSError as error:
        raise InterchangeError(
            f"{target}: expected to write the file, got: {error.strerror or error}; a file that was there "
            "is unchanged"
        ) from None
