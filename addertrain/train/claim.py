"""One run directory belongs to one run at a time: a lock that lasts as long as the process that holds it."""

import contextlib
import dataclasses
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from addertrain.data import file_locks
from addertrain.errors import RunError

LOCK = ".lock"  # in the run directory
OWNER = ".lock.owner"  # in its place, where the file system has no locks
SECONDS_OF_PATIENCE = 10.0
"""How long to wait for another process to let go: one that was told to end may still be at its last save."""

_SECONDS_BETWEEN = 0.05


class _NoLocks(Exception):
    """The file system has no locks."""


@contextlib.contextmanager
def claimed(run: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Holds the run directory `run`, which is made where there is none; the first rank of a run does it.

    The lock goes with the process, however that ends, so no kill locks anybody out. Where a file system has
    no locks, the process that the file names counts; a living one of another machine cannot be told from a
    dead one there, so that costs a warning. A folder that cannot be written is left for others to complain
    of.

    Raises:
        RunError: another process holds it, and still did after `SECONDS_OF_PATIENCE`.
    """
    made = _make(run)
    lock = None
    try:
        lock = _take(run, warn)
        yield
    finally:
        if lock is not None:
            lock.release()
        for folder in made:  # a run that wrote nothing leaves nothing
            with contextlib.suppress(OSError):
                folder.rmdir()


def _make(run: Path) -> list[Path]:
    """Makes the folder and those above it; returns the ones that were not there, the innermost first."""
    absent = [folder for folder in (run, *run.parents) if not folder.exists()]
    with contextlib.suppress(OSError):
        run.mkdir(parents=True, exist_ok=True)
    return absent


def _take(run: Path, warn: Callable[[str], None]) -> "_Lock | None":
    """The lock; None where no file can be written."""
    deadline = time.monotonic() + SECONDS_OF_PATIENCE
    while True:
        try:
            lock = _locked(run / LOCK)
        except _NoLocks:
            lock = _named(run / OWNER, warn)
        except OSError:
            return None
        if lock is not None:
            return lock
        if time.monotonic() > deadline:
            raise RunError(
                f"{run}: expected a run directory that no other process trains in, got one that "
                f"{_holder(run)} does; wait for its end, or choose another --out"
            )
        time.sleep(_SECONDS_BETWEEN)


def _locked(path: Path) -> "_Lock | None":
    """A lock of the kernel's; None where another process has it, or where that cannot be told."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        state = file_locks.lock(file)
    except OSError:
        state = "held"
    if state == "locked":
        return _signed(path, file)
    os.close(file)
    if state == "missing":
        path.unlink(missing_ok=True)
        raise _NoLocks
    return None


def _named(path: Path, warn: Callable[[str], None]) -> "_Lock | None":
    """A file that only one process can have made; one that a dead process left is removed."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        if (signed := _Signature.read(path)) is None or not signed.may_live(path, warn):
            path.unlink(missing_ok=True)
        return None
    lock = _signed(path, file)
    time.sleep(_SECONDS_BETWEEN)  # another one that found the dead process's file may remove this one
    return lock if lock is not None and lock.is_in_place() else None


def _signed(path: Path, file: int) -> "_Lock | None":
    lock = _Lock(path, file)
    if not lock.is_in_place():  # its last holder has just removed it
        os.close(file)
        return None
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(file, 0)
        os.pwrite(file, _Signature.own().to_json().encode(), 0)
    return lock


def _holder(run: Path) -> str:
    """Who holds it, in words."""
    signed = _Signature.read(run / LOCK) or _Signature.read(run / OWNER)
    return f"process {signed.process} on {signed.host}" if signed else "another process"


@dataclass(frozen=True)
class _Lock:
    """An open file that stands for the claim."""

    path: Path
    file: int

    def is_in_place(self) -> bool:
        """Whether the file under that name is this one."""
        try:
            return os.path.samestat(os.fstat(self.file), self.path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Lets the next one in."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(self.file)


@dataclass(frozen=True)
class _Signature:
    """Which process holds a claim; `began` tells it from a later one of the same number."""

    host: str
    process: int
    began: str

    @classmethod
    def own(cls) -> Self:
        """This process's."""
        return cls(socket.gethostname(), os.getpid(), _beginning(os.getpid()))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Of a claim; None where it is not signed, or not yet."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def to_json(self) -> str:
        """As it stands in the file."""
        return json.dumps(dataclasses.asdict(self))

    def may_live(self, path: Path, warn: Callable[[str], None]) -> bool:
        """Whether it is another process of this machine that lives; of other machines nothing is known."""
        if self.host == socket.gethostname():
            return self != self.own() and self.began == _beginning(self.process)
        warn(
            f"{path.parent}: process {self.process} on {self.host} has claimed this run directory, and this "
            "file system cannot tell whether it still runs; make sure that it does not"
        )
        return False


def _beginning(process: int) -> str:
    """When a process of this machine began, in the kernel's ticks; empty where there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()[19]
    except (OSError, IndexError):
        return ""
