"""Threads that decode; they end when they are closed, and their errors reach the caller."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

_JOIN_SECONDS = 5.0


class Workers:
    """A few daemon threads that run calls in order.

    Unlike with an executor, a thread that hangs in a read blocks neither `close` nor the interpreter.
    """

    def __init__(self, num_threads: int, *, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = (
            queue.SimpleQueue()
        )
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{k}", daemon=True) for k in range(num_threads)
        ]
        self._is_closed = False
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Queues a call; the future also carries its error.

        Raises:
            CancelledError: the workers are closed.
        """
        if self._is_closed:
            raise CancelledError
        future: Future[Any] = Future()
        self._calls.put((future, function, args))
        return future

    def close(self) -> None:
        """Drops the calls that have not begun and joins the threads, and waits for a few seconds at most."""
        self._is_closed = True
        try:
            while True:
                if (call := self._calls.get_nowait()) is not None and call[0].cancel():
                    call[0].set_running_or_notify_cancel()  # wakes who waits for it
        except queue.Empty:
            pass
        for _ in self._threads:
            self._calls.put(None)
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function, args = call
            future.set_running_or_notify_cancel()
            try:
                future.set_result(function(*args))
            except BaseException as error:
                future.set_exception(error)
            # The thread waits for its next call with nothing in its hands, least of all a batch.
            del call, future, function, args
