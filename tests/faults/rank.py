"""`python -m tests.faults.rank NOTES SECONDS COMMAND ...`: addertrain, saying what it does at the moment.

A rank writes into NOTES/rank_R whether it starts, steps or evaluates, for somebody else to choose the moment
of a fault. SECONDS is what every flush to the disk takes longer than it would.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WIDTH = 48


@dataclass(frozen=True)
class Note:
    """What a rank is doing: "starts", "steps" or "evaluates", for the `count`-th time in its life."""

    process_id: int
    doing: str
    count: int


def read_note(notes: Path, rank: int) -> Note | None:
    """The latest note of a rank; None before its first."""
    try:
        words = (notes / f"rank_{rank}").read_text().split()
        return Note(int(words[0]), words[1], int(words[2]))
    except (FileNotFoundError, IndexError):
        return None


class _Announcer:
    """Writes this rank's note over and over in one place: a step costs it a system call."""

    def __init__(self, notes: Path) -> None:
        path = notes / f"rank_{os.environ['RANK']}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT)
        self._count = {"starts": 0, "steps": 0, "evaluates": 0}
        self.note("starts")

    def note(self, doing: str, *, is_new: bool = True) -> None:
        self._count[doing] += is_new
        os.pwrite(self._file, f"{os.getpid()} {doing} {self._count[doing]}".ljust(_WIDTH).encode(), 0)


def main(words: list[str]) -> int:
    """Runs the command, in a process that may have been forked from a launcher."""
    notes, seconds, *command = words
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    announcer = _Announcer(Path(notes))
    from addertrain.cli import main as run_command

    _announce_from_trainers(announcer)
    _slow_down_disk(float(seconds))
    return run_command(command)


def _announce_from_trainers(announcer: _Announcer) -> None:
    import torch
    from lightning.pytorch import Callback, Trainer

    from addertrain.train import run

    torch.set_num_threads(1)  # as launch/environment would have it

    class Announcing(Callback):
        def on_train_batch_start(self, *_: object) -> None:
            announcer.note("steps")

        def on_validation_start(self, *_: object) -> None:
            announcer.note("evaluates")

        def on_validation_end(self, *_: object) -> None:
            announcer.note("steps", is_new=False)

    class AnnouncingTrainer(Trainer):
        def __init__(self, *, callbacks: list[Callback], **settings: Any) -> None:
            super().__init__(callbacks=[Announcing(), *callbacks], **settings)

    run.Trainer = AnnouncingTrainer  # type: ignore[misc]


def _slow_down_disk(seconds: float) -> None:
    from addertrain import durable

    def slow_fsync(descriptor: int) -> None:
        time.sleep(seconds)
        fsync(descriptor)

    fsync, durable.os.fsync = os.fsync, slow_fsync


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
