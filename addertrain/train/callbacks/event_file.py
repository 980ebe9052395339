"""A TensorBoard event file whose errors do not stop training."""

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
    """Writes points and images; after an error, such as a full disk, it warns and skips the rest.

    Args:
        first_step: readers that know of resumptions (`report`, and TensorBoard's reader in Python) leave out
            the points of earlier files from this step on; the program `tensorboard` still draws them.
        warn: receives one line.
    """

    def __init__(self, folder: Path, *, first_step: int, warn: Callable[[str], None]) -> None:
        self._folder, self._warn = folder, warn
        self._writer: SummaryWriter | None = None
        self._hook = threading.excepthook
        threading.excepthook = self._on_thread_error
        self.reopen(first_step=first_step)

    def reopen(self, *, first_step: int) -> None:
        """Begins another file if an error has ended the previous one."""
        if self._writer is None:
            with self._errors_told():
                put_earlier_files_first(self._folder)
                self._writer = SummaryWriter(str(self._folder), purge_step=first_step)

    def add_points(self, points: Mapping[str, float], step: int) -> None:
        """Adds a point to each curve."""
        with self._errors_told():
            for tag, value in points.items():
                if self._writer is not None:
                    self._writer.add_scalar(tag, value, step)

    def add_picture(self, tag: str, picture_chw: Tensor, step: int) -> None:
        """Adds an image, uint8."""
        with self._errors_told():
            if self._writer is not None:
                self._writer.add_image(tag, picture_chw, step)

    def flush(self) -> None:
        """Writes what was added to disk."""
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
            self._warn(
                f"{self._folder}: expected to write TensorBoard events, got: {error}; training continues "
                "without them"
            )

    def _on_thread_error(self, told: threading.ExceptHookArgs) -> None:
        # The writer keeps its thread's error and raises it at the next point; its traceback helps nobody.
        if type(told.thread).__name__ != "_AsyncWriterThread" or not isinstance(told.exc_value, OSError):
            self._hook(told)


def put_earlier_files_first(folder: Path) -> None:
    """Makes sure that an event file that is begun now is read last.

    Files are named by the time of day, in seconds, and are read in the order of their names. A clock that was
    set back, another machine's, or a start within the same second would sort the new one before the files
    that it continues; these are then renamed to the numbers 1, 2, ... in their order.

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
