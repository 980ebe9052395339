"""Receives signals while the interpreter is inside C++, where Python's own handlers have to wait.

A rank that waits for another one returns to Python when that one answers, or never. But Python's C handler
writes the number of every signal to a pipe at once, and our thread can read it, because code that waits in
C++ has released the interpreter.
"""

import ctypes
import os
import signal
import threading
from collections.abc import Callable


class Listener:
    """Calls `heard(number)` in a thread of its own for every signal that has a handler of Python's.

    It is created and closed in the main thread; `close` returns when all earlier signals have been handled.
    """

    def __init__(self, heard: Callable[[int], None]) -> None:
        self._heard = heard
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        self._before = signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening."""
        signal.set_wakeup_fd(self._before)
        os.write(self._writes, b"\0")
        self._thread.join()
        os.close(self._reads)
        os.close(self._writes)

    def _listen(self) -> None:
        while True:
            for number in os.read(self._reads, 64):
                if number == 0:
                    return
                self._heard(number)


def end_process(number: int) -> None:
    """Ends this process as the signal itself would; unlike `signal.signal`, any thread may call it."""
    set_handler = ctypes.CDLL(None).signal
    set_handler.argtypes, set_handler.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    set_handler(number, None)  # SIG_DFL
    os.kill(os.getpid(), number)
