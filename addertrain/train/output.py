"""Prints lines for the user on streams that may fail, because a failed line must not stop training.

If a reader has ended (`| head`), a terminal is closed, a disk is full, or an encoding lacks a character, what
cannot be written is left out and the work continues.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class ForgivingStream:
    """A text stream that leaves out what it cannot write; everything else is the stream's own.

    Args:
        stream: the stream to write to; None, as in Python if the descriptor is closed, accepts nothing.

    `failure` is the first system error for which something was left out.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.failure: OSError | None = None
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes what the stream accepts."""
        with self._failures_noted():
            if self._stream is not None:
                self._stream.write(_in_its_encoding(text, self._stream))
        return len(text)

    def flush(self) -> None:
        """Flushes the stream, if that is possible."""
        with self._failures_noted():
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        """Its file descriptor.

        Raises:
            OSError: there is no descriptor.
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
    """Makes stdout and stderr forgiving for everything that a command and its libraries print.

    Yields:
        The replacement of stdout.
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
    """The text, with characters that the encoding lacks as escapes, and bytes of paths unchanged."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding, getattr(stream, "errors", None) or "strict")
        return text
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)


def _open_closed_descriptors() -> None:
    """Opens /dev/null as 0, 1 and 2 if they are closed; otherwise the next file would get that number, and
    libraries write their messages to descriptor 2.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one


def _settle(stream: TextIO | None) -> None:
    """Makes Python's own last flush at exit succeed, because a failure would give exit code 120."""
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
