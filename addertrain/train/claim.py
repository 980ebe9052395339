"""Makes sure that only one process trains in a run directory, by a lock that ends with the process."""

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
    """Holds the run directory `run`, which is created if it does not exist; the first rank of a run does it.
    The lock ends with the process, however that ends. On a file system without locks, the process that the
    file names is checked; whether one on another machine is alive is unknown, so that gives a warning. A
    folder that cannot be written is reported elsewhere.

    Raises:
        RunError: another process holds it, and still does after `SECONDS_OF_PATIENCE`.
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
    """Creates the folder and its parents; returns the ones that it created, innermost first."""
    absent = [folder for folder in (run, *run.parents) if not folder.exists()]
    with contextlib.suppress(OSError):
        run.mkdir(parents=True, exist_ok=True)
    return absent


def _take(run: Path, warn: Callable[[str], None]) -> "_Lock | None":
    """The lock; None if no file can be written."""
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
                f"{run}: expected a run directory that no other process uses, got one in which "
                f"{_holder(run)} trains; wait until it ends, or choose another --out"
            )
        time.sleep(_SECONDS_BETWEEN)


def _locked(path: Path) -> "_Lock | None":
    """A lock of the kernel; None if another process has it, or may have it."""
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
    """A file that only one process can have created; that of a dead process is removed."""
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
    """The holder of the lock, in words."""
    signed = _Signature.read(run / LOCK) or _Signature.read(run / OWNER)
    return f"process {signed.process} on {signed.host}" if signed else "another process"


@dataclass(frozen=True)
class _Lock:
    """An open file that represents the claim."""

    path: Path
    file: int

    def is_in_place(self) -> bool:
        """Whether the file of that name is still this one."""
        try:
            return os.path.samestat(os.fstat(self.file), self.path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Releases the lock."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(self.file)


@dataclass(frozen=True)
class _Signature:
    """Which process holds a claim; `began` distinguishes it from a later process with the same number."""

    host: str
    process: int
    began: str

    @classmethod
    def own(cls) -> Self:
        """The signature of this process."""
        return cls(socket.gethostname(), os.getpid(), _beginning(os.getpid()))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The signature of a claim; None if it is not signed yet."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def to_json(self) -> str:
        """The signature as JSON."""
        return json.dumps(dataclasses.asdict(self))

    def may_live(self, path: Path, warn: Callable[[str], None]) -> bool:
        """Whether the process may be alive; processes of other machines are unknown."""
        if self.host == socket.gethostname():
            return self != self.own() and self.began == _beginning(self.process)
        warn(
            f"{path.parent}: process {self.process} on {self.host} has claimed this run directory, and on "
            "this file system addertrain cannot tell whether it is still running; make sure that it is not"
        )
        return False


def _beginning(process: int) -> str:
    """The start of a process of this machine, in the kernel's ticks; empty if there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()[19]
    except (OSError, IndexError):
        return ""
