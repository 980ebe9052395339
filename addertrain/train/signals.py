"""Signals that ask a run to save and leave: SIGTERM and SIGUSR1, which schedulers send before they kill."""

import ctypes
import os
import signal
import threading
import time
from contextlib import AbstractContextManager
from types import FrameType, TracebackType

ASKING = (signal.SIGTERM, signal.SIGUSR1)
SECONDS_OF_ONE_SIGNAL = 2.0
_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


class SignalWatch(AbstractContextManager["SignalWatch"]):
    """Notes the first signal, for the run to act on between two steps; the second ends the process at once.

    What comes within `seconds_of_one` of the first is the same one: a scheduler tells all processes of a job,
    and the launcher tells its ranks once more. May be entered again inside itself. `is_answered` is set once
    the run has saved: launchers then end the slower ranks with one more signal, which must not cut their
    leaving.
    """

    def __init__(self, *, seconds_of_one: float = SECONDS_OF_ONE_SIGNAL) -> None:
        self.received: str | None = None
        self.is_answered = False
        self._seconds_of_one = seconds_of_one
        self._received_at = 0.0
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
        for number in ASKING:
            self._before[number] = signal.signal(number, self._note)  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.is_answered:
            return
        if self.received is None:
            self.received, self._received_at = signal.Signals(number).name, time.monotonic()
        elif time.monotonic() - self._received_at >= self._seconds_of_one:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def end_with_launcher() -> None:
    """Has the kernel send this process SIGTERM when its launcher dies, so that no rank trains on unwatched.

    A launcher that is killed outright tells nobody. Its ranks would go on and write into the run directory
    beside the ranks of the next start.
    """
    launcher = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM.value)
    if os.getppid() != launcher:  # it died before the kernel knew
        os.kill(os.getpid(), signal.SIGTERM)
