"""The folder of a report: files of an earlier report are replaced, and no others are changed.

report.json names every file of its report, so it records what may be replaced or removed.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from addertrain.durable import flush_directory, flush_file, remove_leftovers
from addertrain.errors import RunError, UsageError

PAGE, NUMBERS, TABLES = "index.html", "report.json", "report.md"
FILES = "files"  # of report.json: the names of all files of the report


def check_folder(out: Path) -> None:
    """Raises UsageError unless `out` is new, empty, or holds an earlier report."""
    if out.is_symlink() and not out.exists():
        raise UsageError(f"{out}: expected a folder for the report, got a broken link; choose another --out")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: expected a folder for the report, got a file; choose another --out")
    if out.is_dir() and any(out.iterdir()) and _earlier_files(out) is None:
        raise UsageError(
            f"{out}: expected a new folder or an earlier report, got other files; choose another --out"
        )


def write_folder(out: Path, files: Mapping[str, bytes]) -> None:
    """Writes the files of a report into `out` and removes those that only the earlier one there had.

    Everything is written under a hidden name first, then renamed: report.json first, so that the next report
    recognises the files of a process that was killed in between.

    Raises:
        UsageError: a file of the same name exists that no report wrote.
        RunError: the folder cannot be written.
    """
    earlier = set(_earlier_files(out) or ())
    if taken := sorted(name for name in files if name not in earlier and os.path.lexists(out / name)):
        raise UsageError(
            f"{out / taken[0]}: expected no such file, or one of an earlier report, got another file; "
            "rename it, or choose another --out"
        )
    hidden = out / f".report.{os.getpid()}.tmp"
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out, "report")
        hidden.mkdir()
        for name, contents in files.items():
            (hidden / name).write_bytes(contents)
            flush_file(hidden / name)
        for name in sorted(files, key=lambda name: name != NUMBERS):
            (hidden / name).replace(out / name)
        for name in earlier - set(files):
            (out / name).unlink(missing_ok=True)
        flush_directory(out)
    except OSError as error:
        raise RunError(
            f"{out}: expected a folder that can be written, got: {error.strerror}; choose another --out"
        ) from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):
                out.rmdir()  # where nothing was written


def _earlier_files(out: Path) -> list[str] | None:
    """The files of the report in `out`; None if there is no report of addertrain."""
    try:
        report = json.loads((out / NUMBERS).read_text(encoding="utf-8"))
        if not report["made"].startswith("addertrain "):
            return None
        return [name for name in report.get(FILES, _listed(report)) if Path(name).name == name]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _listed(report: Mapping[str, Any]) -> list[str]:
    """The files of a report that earlier versions wrote, which did not list them: its figures and texts."""
    pictures = [picture["file"] for section in report["sections"] for picture in section["pictures"]]
    return [PAGE, NUMBERS, TABLES, *pictures, *(str(Path(name).with_suffix(".svg")) for name in pictures)]
