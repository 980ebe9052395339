"""Handles SIGTERM and SIGUSR1, which schedulers send before they kill: the run saves and ends."""

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
    """Records the first signal, on which the run acts between two steps; a second one ends the process at
    once.

    A signal within `seconds_of_one` of the first counts as the same, because a scheduler signals all
    processes of a job, and the launcher signals its ranks again. Ctrl-C raises KeyboardInterrupt, or ends a
    process that does not return to Python for so long; after a first signal a process whose launcher is gone
    has thirty times as long, because nothing else would end it. It may be entered recursively. `is_answered`
    is set once the run has saved: launchers then end the slower ranks with another signal, which must not
    interrupt them.

    Args:
        asking: the signals that are recorded; others keep their effect.
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
        """Why the run ends, as far as this process knows."""
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
        """Runs in the listener's thread, because the main thread may be waiting for another rank."""
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
    """Makes the kernel send SIGTERM to this process when its launcher dies.

    Otherwise the ranks of a killed launcher would continue, and write to the run directory together with the
    ranks of the next start.
    """
    launcher = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM.value)
    if os.getppid() != launcher:  # it died before the kernel knew
        os.kill(os.getpid(), signal.SIGTERM)
