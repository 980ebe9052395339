"""How far a long piece of work is and when it will be done: a bar on a terminal, else a line now and then."""

import sys
import time
from typing import Any

from addertrain.train.output import ForgivingStream

_SECONDS_A_LINE = 10.0


class Countdown:
    """Reports on things of a kind; nothing before the first call, so that a quick failure is clean."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Any = None
        self._since = self._said = 0.0
        self._first = self._calls = 0

    def __call__(self, done: int, total: int, bad: int = 0) -> None:
        """`done` of `total` are over, of which `bad` went wrong."""
        if self._calls < 2:
            # From the first thing that is done on: what comes before it is starting up.
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
        """Leaves the bar as it stands."""
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
