"""Shows the progress of long work: a bar on a terminal, otherwise a line every ten seconds."""

import sys
import time
from typing import Any

from addertrain.train.output import ForgivingStream

_SECONDS_A_LINE = 10.0


class Countdown:
    """Reports how many items are done; prints nothing before the first call."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Any = None
        self._since = self._said = 0.0
        self._first = self._calls = 0

    def __call__(self, done: int, total: int, bad: int = 0) -> None:
        """Reports that `done` of `total` items are done, and that `bad` of them could not be read."""
        if self._calls < 2:
            # Time counts from the first item that is done, because starting up takes time of its own.
            self._first = done
            self._since = self._said = time.monotonic()
            self._calls += 1
        problems = f"{bad} unreadable" if bad else ""
        if ForgivingStream(sys.stderr).isatty():
            self._draw(done, total, problems)
        elif done == total or time.monotonic() - self._said > _SECONDS_A_LINE:
            self._said = time.monotonic()
            line = f"{done} of {total} {self._unit}s{self._left(done, total)}"
            print(f"{line}, {problems}" if bad else line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar and leaves it on the screen."""
        if self._bar is not None:
            self._bar.close()

    def _draw(self, done: int, total: int, problems: str) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit=self._unit, dynamic_ncols=True, file=sys.stderr)
        self._bar.set_postfix_str(problems, refresh=False)
        self._bar.update(done - self._bar.n)

    def _left(self, done: int, total: int) -> str:
        fresh = done - self._first
        if fresh <= 0 or done == total:
            return ""
        seconds = (time.monotonic() - self._since) / fresh * (total - done)
        return f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"
