"""A file of TensorBoard's events whose errors end no training: curves are worth less than steps."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter


class EventFile:
    """Writes points and pictures; after an error (a full disk) it says so and leaves out the rest.

    Args:
        first_step: later points of earlier files are void.
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
