"""Files that are complete or absent: written under another name, flushed to disk, then renamed.

A rename is atomic; the data is flushed before it, so that a power cut leaves the old file or the new one. A
process that is killed in between leaves a hidden file, which the next write of the same file removes.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

HASH_CHUNK_BYTES = 1 << 20


def flush_file(path: Path) -> None:
    """Returns when the contents of `path` are on disk."""
    _flush(path, os.O_RDONLY)


def flush_directory(path: Path) -> None:
    """Returns when the names in `path` are on disk; some network file systems cannot do this and need not."""
    with contextlib.suppress(OSError):
        _flush(path, os.O_RDONLY | os.O_DIRECTORY)


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replaces `path` by `text`, atomically and durably."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the name under which the block writes the new `path`, which replaces it when the block ends.

    If the block raises or the process is killed in it, `path` does not change.
    """
    remove_leftovers(path.parent, re.escape(path.name))
    temporary = hidden_name(path, "tmp")
    try:
        yield temporary
        flush_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_directory(path.parent)


def hidden_name(path: Path, ending: Literal["tmp", "old"]) -> Path:
    """This process's hidden name under which `path` is written ("tmp") or removed ("old")."""
    return path.with_name(f".{path.name}.{os.getpid()}.{ending}")


def remove_leftovers(folder: Path, names: str) -> None:
    """Removes what killed processes left in `folder` under hidden names of `names`, a regular expression.

    Files that cannot be removed stay, because no write may fail because of them.
    """
    hidden = re.compile(rf"\.(?:{names})\.(?P<process>\d+)\.(?:tmp|old)")
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            name = hidden.fullmatch(path.name)
            if not name or _is_another_at_work(int(name["process"])):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_another_at_work(process_id: int) -> bool:
    """Whether another process with that number runs on this machine, such as a rank whose launcher was
    killed.
    """
    if process_id == os.getpid():
        return False
    try:
        os.kill(process_id, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
