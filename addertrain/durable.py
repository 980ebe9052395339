"""Files that are whole or absent: written under another name, flushed to the disk, then renamed.

A rename is atomic; the flushes put it after the data, so that a power cut leaves the old file or the new one.
"""

import contextlib
import hashlib
import os
from pathlib import Path

HASH_CHUNK_BYTES = 1 << 20


def flush_file(path: Path) -> None:
    """Returns once the contents of `path` are on the disk."""
    _flush(path, os.O_RDONLY)


def flush_directory(path: Path) -> None:
    """Returns once the names in `path` are on the disk; some network file systems cannot, and need not."""
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        flush_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_directory(path.parent)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
