"""Signals that ask a run to save and leave: SIGTERM and SIGUSR1, which schedulers send before they kill."""

import ctypes
import math
import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import FrameType, TracebackType

from addertrain.train.listening import Listener, end_process

ASKING = (signal.SIGTERM, signal.SIGUSR1)
SECONDS_OF_ONE_SIGNAL = 2.0
_SECONDS_BETWEEN_LOOKS = 0.05
_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


class SignalWatch(AbstractContextManager["SignalWatch"]):
    """Notes the first signal, for the run to act on between two steps; the second ends the process at once.

    What comes within `seconds_of_one` of the first is the same one: a scheduler tells all processes of a job,
    and the launcher tells its ranks once more. Ctrl-C raises KeyboardInterrupt, or ends a process that
    does not come back to Python for so long; a first signal leaves thirty times as long to one whose launcher
    is gone, which nobody else would end. May be entered again inside itself. `is_answered` is set once the
    run has saved: launchers then end the slower ranks with one more signal, which must not cut their leaving.

    Args:
        asking: the signals that are noted; the others do what they did.
    """

    def __init__(
        self,
        *,
        asking: Sequence[signal.Signals] = ASKING,
        seconds_of_one: float = SECONDS_OF_ONE_SIGNAL,
    ) -> None:
        self.received: str | None = None
        self.is_answered = False
        self._asking = asking
        self._launcher = os.getppid()
        self._seconds_of_one = seconds_of_one
        self._first_at: float | None = None
        self._interrupted_at = -math.inf
        self._listener: Listener | None = None
        self._depth = 0
        self._before: dict[signal.Signals, signal.Handlers | int | None] = {}

    @property
    def reason(self) -> str:
        """Why the run leaves, as this process knows it."""
        return f"{self.received} to this process" if self.received else "a signal"

    def __enter__(self) -> "SignalWatch":
        self._depth += 1
        if self._depth > 1 or threading.current_thread() is not threading.main_thread():
            return self  # Python hands signals to the main thread alone
        for number in self._asking:
            self._before[number] = signal.signal(number, self._note)  # type: ignore[assignment]
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)  # type: ignore[assignment]
        self._listener = Listener(self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0 and self._listener is not None:
            self._listener.close()
            self._listener = None
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None and not self.is_answered:
            self.received = signal.Signals(number).name

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted_at = time.monotonic()
        signal.default_int_handler(number, frame)

    def _hear(self, number: int) -> None:
        """In the listener's thread: the main one may be waiting for another rank, and hear of nothing."""
        if number == signal.SIGINT:
            self._end_unless_interrupted()
        elif number in self._asking and not self.is_answered:
            now = time.monotonic()
            if self._first_at is None:
                self._first_at = now
                later = threading.Timer(30 * self._seconds_of_one, self._end_if_orphaned, (number,))
                later.daemon = True
                later.start()
            elif now - self._first_at >= self._seconds_of_one:
                end_process(number)

    def _end_if_orphaned(self, number: int) -> None:
        is_waiting = self._listener is not None and self.received is None
        if is_waiting and os.getppid() != self._launcher:
            end_process(number)

    def _end_unless_interrupted(self) -> None:
        heard_at = time.monotonic()
        while self._interrupted_at < heard_at - self._seconds_of_one:
            if time.monotonic() - heard_at > self._seconds_of_one:
                end_process(signal.SIGINT)
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def end_with_launcher() -> None:
    """Has the kernel send this process SIGTERM when its launcher dies, so that no rank trains on unwatched.

    A launcher that is killed outright tells nobody. Its ranks would go on and write into the run directory
    beside the ranks of the next start.
    """
    launcher = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM.value)
    if os.getppid() != launcher:  # it died before the kernel knew
        os.kill(os.getpid(), signal.SIGTERM)
