"""Disks that fail for a while, in ways that root cannot pass by either."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest


class Disk(Protocol):
    """The folder of a run's checkpoints, and what happens to it."""

    def break_it(self, checkpoints: Path) -> None:
        """From here on nothing can be written."""

    def mend(self, checkpoints: Path) -> None:
        """From here on it can be again."""


class FullDisk:
    """A file takes all the room there is."""

    def break_it(self, checkpoints: Path) -> None:
        with contextlib.suppress(OSError), self._filler(checkpoints).open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
                file.flush()

    def mend(self, checkpoints: Path) -> None:
        self._filler(checkpoints).unlink()

    def _filler(self, checkpoints: Path) -> Path:
        return checkpoints.parent.parent / "filler"


class ReadOnlyFolder:
    """Nothing can be added to the folder or removed from it, not even by root."""

    def break_it(self, checkpoints: Path) -> None:
        try:
            subprocess.run(["chattr", "+i", str(checkpoints)], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", "") or str(error)
            pytest.skip(f"a folder cannot be made immutable here: {reason.strip()}")

    def mend(self, checkpoints: Path) -> None:
        subprocess.run(["chattr", "-i", str(checkpoints)], check=True)


class RemovedFolder:
    """The folder goes, with all that is in it, and a file has its name for a while."""

    def break_it(self, checkpoints: Path) -> None:
        gone = checkpoints.rename(checkpoints.with_name("gone"))
        shutil.rmtree(gone, ignore_errors=True)  # something may be written into it at this moment
        checkpoints.write_text("somebody else's")

    def mend(self, checkpoints: Path) -> None:
        checkpoints.unlink()


@contextlib.contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[Path]:
    """A file system in memory of so many MiB at `folder`; skips the test where mounting is not permitted."""
    folder.mkdir()
    options = f"size={megabytes}m"
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"a small disk cannot be mounted here: {reason.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
