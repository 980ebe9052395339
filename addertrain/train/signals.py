"""Signals that ask a run to save and leave: SIGTERM and SIGUSR1, which schedulers send before they kill."""

import os
import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType, TracebackType

ASKING = (signal.SIGTERM, signal.SIGUSR1)


class SignalWatch(AbstractContextManager["SignalWatch"]):
    """Notes the first signal, for the run to act on between two steps; the second ends the process at once.

    `is_answered` is set once the run has saved: launchers then end the slower ranks with one more signal,
    which must not cut their leaving.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self.is_answered = False
        self._before: dict[signal.Signals, signal.Handlers | int | None] = {}

    def __enter__(self) -> "SignalWatch":
        if threading.current_thread() is not threading.main_thread():
            return self  # Python hands signals to the main thread alone
        for number in ASKING:
            self._before[number] = signal.signal(number, self._note)  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.is_answered:
            return
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = signal.Signals(number).name
