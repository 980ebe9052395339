"""Runs pytest within a limit and leaves no process behind: python -m tests.whole_run [OPTION ...] WORD ...

`launch/test` ends in it. Whatever ends the run (pytest itself, the limit, Ctrl-C, a signal), every process
that it started is gone afterwards, those too that tests have put into sessions of their own.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from tests.instruction_sets import NAMES, is_here, kernels_limited_to, libraries_limited_to

_PR_SET_CHILD_SUBREAPER = 36  # from <linux/prctl.h>
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_LIMIT_MINUTES = 40.0
_GRACE_SECONDS = 25.0  # xdist gives its workers ten, and as many for their pipes, before pytest sums up
_KILLED_SECONDS = 10.0  # for what the kernel itself holds back to end
_SI_KERNEL = 0x80  # from <asm-generic/siginfo.h>: who sent the signal is no process
_EXIT_LATE = 124  # as coreutils' timeout


def main(words: list[str]) -> int:
    arguments, pytest_arguments = _parser().parse_known_args(words)
    if arguments.instruction_set:
        if not is_here(arguments.instruction_set):
            print(f"launch/test: this processor has no {arguments.instruction_set}.", file=sys.stderr)
            return 2
        os.environ |= kernels_limited_to(arguments.instruction_set)
        os.environ |= libraries_limited_to(arguments.instruction_set)
    return _run(pytest_arguments, limit_seconds=60 * arguments.limit)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch/test", allow_abbrev=False, add_help=False)
    parser.add_argument("--limit", type=float, default=_LIMIT_MINUTES, metavar="MINUTES")
    parser.add_argument("--instruction-set", choices=NAMES)
    return parser


def _run(pytest_arguments: list[str], *, limit_seconds: float) -> int:
    """Pytest's exit code; 124 past the limit, 128 and its number after a signal."""
    # Orphans of any generation become this process's children, so that it can find them.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # Blocked signals wait to be asked for below, also where a script's background job ignores SIGINT.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING | {signal.SIGCHLD})
    command = [sys.executable, "-m", "pytest", *pytest_arguments]
    pytest_id = os.posix_spawn(sys.executable, command, os.environ, setsigmask=(), setsigdef=_ENDING)
    deadline = time.monotonic() + limit_seconds
    try:
        code, got = _wait(pytest_id, deadline)
        if code is not None:
            if code > 128:
                print(f"launch/test: pytest died of {signal.Signals(code - 128).name}.", file=sys.stderr)
            return code
        # From a terminal Ctrl-C has reached pytest already, and a second one would cut its summary short.
        if got is None or got.si_code != _SI_KERNEL:
            os.kill(pytest_id, signal.SIGINT)
        _wait(pytest_id, time.monotonic() + _GRACE_SECONDS)
    finally:
        _end_descendants()
    if got is None:
        minutes = limit_seconds / 60
        print(f"launch/test: ended at the limit of {minutes:g} minutes (--limit).", file=sys.stderr)
        return _EXIT_LATE
    print(f"launch/test: ended by {signal.Signals(got.si_signo).name}.", file=sys.stderr)
    return 128 + got.si_signo


def _wait(pytest_id: int, deadline: float) -> tuple[int | None, signal.struct_siginfo | None]:
    """The exit code once pytest has ended; otherwise None, and the signal to end, or None at the deadline."""
    while True:
        code = _reap(pytest_id)
        if code is not None:
            return code, None
        left = deadline - time.monotonic()
        got = signal.sigtimedwait(_ENDING | {signal.SIGCHLD}, left) if left > 0 else None
        if got is None or got.si_signo in _ENDING:
            return None, got


def _reap(pytest_id: int) -> int | None:
    """Collects ended children, orphans among them; pytest's exit code if it is one, as a shell has it."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == pytest_id:
                code = os.waitstatus_to_exitcode(ended[1])
                found = 128 - code if code < 0 else code
    return found


def _end_descendants() -> None:
    """Kills until nothing is left: what a process starts while it is killed becomes a child of this one."""
    deadline = time.monotonic() + _KILLED_SECONDS
    while (children := _descendants()) and time.monotonic() < deadline:
        for process_id in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
        _reap(0)
        time.sleep(0.01)


def _descendants() -> list[int]:
    """Every process below this one."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent = int(stat.read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = list(children.get(os.getpid(), []))
    for process_id in found:
        found += children.get(process_id, [])
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
