"""A file of TensorBoard's events whose errors end no training: curves are worth less than steps."""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

_NAME = re.compile(r"(events\.out\.tfevents\.)(\d+)(\..*)")


class EventFile:
    """Writes points and pictures; after an error (a full disk) it says so and leaves out the rest.

    Args:
        first_step: readers that know of resumptions (`report`, and TensorBoard's reader in Python) leave out
            the points of earlier files from here on; the program `tensorboard` draws them all the same.
        warn: is told in one line.
    """

    def __init__(self, folder: Path, *, first_step: int, warn: Callable[[str], None]) -> None:
        self._folder, self._warn = folder, warn
        self._writer: SummaryWriter | None = None
        self._hook = threading.excepthook
        threading.excepthook = self._on_thread_error
        self.reopen(first_step=first_step)

    def reopen(self, *, first_step: int) -> None:
        """Begins another file where an error has ended the one before."""
        if self._writer is None:
            with self._errors_told():
                put_earlier_files_first(self._folder)
                self._writer = SummaryWriter(str(self._folder), purge_step=first_step)

    def add_points(self, points: Mapping[str, float], step: int) -> None:
        """A point of each curve."""
        with self._errors_told():
            for tag, value in points.items():
                if self._writer is not None:
                    self._writer.add_scalar(tag, value, step)

    def add_picture(self, tag: str, picture_chw: Tensor, step: int) -> None:
        """A picture, uint8."""
        with self._errors_told():
            if self._writer is not None:
                self._writer.add_image(tag, picture_chw, step)

    def flush(self) -> None:
        """Puts on the disk what was added."""
        with self._errors_told():
            if self._writer is not None:
                self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        with self._errors_told():
            if self._writer is not None:
                self._writer.close()
        self._writer = None
        threading.excepthook = self._hook

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._writer = None
            self._warn(f"{self._folder}: expected to write curves, got: {error}; training goes on without")

    def _on_thread_error(self, told: threading.ExceptHookArgs) -> None:
        # The writer keeps its thread's error and raises it at the next point; its traceback helps nobody.
        if type(told.thread).__name__ != "_AsyncWriterThread" or not isinstance(told.exc_value, OSError):
            self._hook(told)


def put_earlier_files_first(folder: Path) -> None:
    """Makes sure that a file of events that is begun now is read last.

    Files are named by the time of day, in seconds, and are read in the order of their names. A clock that was
    set back, another machine's, or a start within the same second would put the new one before those whose
    points it continues; they get the numbers 1, 2, ... in place of their times then, in the order they have.

    Raises:
        OSError: they cannot be renamed.
    """
    matches = [
        match
        for path in sorted(folder.glob("events.out.tfevents.*"))
        if (match := _NAME.fullmatch(path.name))
    ]
    if all(int(match[2]) < int(time.time()) for match in matches):
        return
    for number, match in enumerate(matches, start=1):
        (folder / match[0]).rename(folder / f"{match[1]}{number:010d}{match[3]}")
