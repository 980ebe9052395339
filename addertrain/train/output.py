"""What is said to a person, on streams that may take nothing more: no line is worth a training.

A reader that has gone (`| head`), a closed terminal, a full disk under a log, a character that the stream's
encoding lacks: what cannot be written is left out, and the work goes on.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class ForgivingStream:
    """A text stream that leaves out what it cannot write; everything else is the stream's own.

    Args:
        stream: what is written to; None, as Python has it where the descriptor is closed, takes nothing.

    `failure` is the first error of the system that something was left out for.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.failure: OSError | None = None
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes what the stream can take."""
        with self._failures_noted():
            if self._stream is not None:
                self._stream.write(_in_its_encoding(text, self._stream))
        return len(text)

    def flush(self) -> None:
        """Hands on what was written, if that is possible."""
        with self._failures_noted():
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        """The descriptor below it.

        Raises:
            OSError: there is none.
        """
        if self._stream is None:
            raise OSError("the stream is closed")
        return self._stream.fileno()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _failures_noted(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = self.failure or error
        except (ValueError, AttributeError):  # it has been closed
            pass


def say(line: str) -> None:
    """A line on stdout."""
    print(line, file=ForgivingStream(sys.stdout), flush=True)


def warn(line: str) -> None:
    """A warning on stderr."""
    complain(f"addertrain: warning: {line}")


def complain(line: str) -> None:
    """A line on stderr."""
    print(line, file=ForgivingStream(sys.stderr), flush=True)


@contextlib.contextmanager
def forgiving_output() -> Iterator[ForgivingStream]:
    """Makes stdout and stderr forgive, for everything that a command prints, whoever prints it.

    Yields:
        What stands in for stdout.
    """
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    out, errors = (ForgivingStream(stream) for stream in before)
    sys.stdout, sys.stderr = out, errors
    try:
        yield out
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            _settle(stream)


def _in_its_encoding(text: str, stream: TextIO) -> str:
    """The text, with what the stream's encoding lacks written as escapes, and a path's bytes as they are."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding, getattr(stream, "errors", None) or "strict")
        return text
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)


def _open_closed_descriptors() -> None:
    """Gives 0, 1 and 2 to /dev/null where they are closed: the next file to be opened would get the number.

    Libraries write their complaints to descriptor 2, whatever lies behind it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one


def _settle(stream: TextIO | None) -> None:
    """Has Python's own last flush at its exit succeed: it would turn a failure into exit code 120."""
    if stream is None or stream.closed:
        return
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
            stream.flush()
