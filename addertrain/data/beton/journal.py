"""The journal of a .beton that is being written: which pages are on disk, and what they hold.

A page is flushed before its line is written, so every page with a line survives a crash.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

from addertrain.durable import write_text
from addertrain.errors import DataError


class Row(NamedTuple):
    """A stored image: its number in the source and its entry in the file."""

    sample: int
    label: int
    mode: int
    height: int
    width: int
    offset: int
    size: int
    checksum: int
    change: int = 0


class Page(NamedTuple):
    """A page that is on the disk: its SHA-256 and its images."""

    sha256: str
    rows: list[Row]


class Journal:
    """What has been written so far, in the order of the pages."""

    def __init__(self, path: Path, file: IO[str], pages: list[Page]) -> None:
        self.path, self.pages = path, pages
        self._file = file

    @classmethod
    def open(cls, path: Path, about: dict[str, Any], is_there: Callable[[int, Page], bool]) -> Self:
        """Opens the journal of an earlier start, or begins one.

        Args:
            about: what is being written; it must equal that of the earlier start.
            is_there: whether a page is still on disk, by its number and record.

        Raises:
            DataError: the earlier start wrote something else.
        """
        pages = _read(path, about) if path.exists() else []
        while pages and not is_there(len(pages) - 1, pages[-1]):
            pages.pop()
        # Written again, because a line that a crash left incomplete must not stay in the middle.
        write_text(path, "".join(f"{line}\n" for line in [json.dumps(about), *map(json.dumps, pages)]))
        return cls(path, path.open("a", encoding="utf-8"), pages)

    def add(self, page: Page) -> None:
        """Records a page that is on disk."""
        self._file.write(json.dumps(page) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.pages.append(page)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def earlier_about(path: Path) -> dict[str, Any] | None:
    """What an earlier start was writing; None if there was no earlier start."""
    try:
        with path.open(encoding="utf-8") as file:
            about = _parsed(file.readline())
    except FileNotFoundError:
        return None
    is_ours = isinstance(about, dict) and isinstance(about.get("settings"), dict)
    return about if is_ours and "page_size" in about["settings"] else None


def _read(path: Path, about: dict[str, Any]) -> list[Page]:
    with path.open(encoding="utf-8") as file:
        lines = iter(file)
        earlier = _parsed(next(lines, ""))
        if earlier is not None and earlier != about:
            different = [
                key for key in about if not isinstance(earlier, dict) or earlier.get(key) != about[key]
            ]
            raise DataError(
                f"{path}: expected the settings and images that it was started with, got others (different: "
                f"{', '.join(different)}); use the same ones, or remove {path.name} and {path.stem} to "
                "start again"
            )
        pages = []
        for line in lines:
            if (parsed := _parsed(line)) is None:
                break
            sha256, rows = parsed
            pages.append(Page(sha256, [Row(*row) for row in rows]))
        return pages


def _parsed(line: str) -> Any:
    """The value of a line; None if it is incomplete."""
    if not line.endswith("\n"):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None
