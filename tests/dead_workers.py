"""A pytest plugin: a worker process that dies ends the run at once, and the test that it was running fails.

pytest-xdist 3.8 replaces a dead worker, and then a run may never end: with `--dist loadfile` the dead one's
files are handed out again, and a new worker that gets a file whose tests are all done has nothing to run,
reports nothing and is given no other file. `--max-worker-restart=0` mends no more than this: a death during
collection then passes as "no tests ran" with exit code 0, one at the interpreter's end passes unseen, the
other workers first finish their files, and nobody notices a death while a process that the worker has forked
holds its pipe. So the controller waits for the processes themselves, and ends the run when the first of them
dies; every worker notes in a file where it is. A process for each file of tests would need no xdist, but each
would import torch.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

_FAULTS = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(_Worker(Path(config.workerinput["note"])))
    elif getattr(config.option, "dist", "no") != "no":  # pytest-xdist is installed, and asked for workers
        config.pluginmanager.register(_Controller(config))


def _process(node: Any) -> subprocess.Popen[bytes]:
    """A worker's process: execnet has no public name for it."""
    process: subprocess.Popen[bytes] = node.gateway._io.popen
    return process


def _cause(node: Any) -> str:
    """The signal that ended a worker, where one did."""
    with contextlib.suppress(subprocess.TimeoutExpired):  # its pipe may end a moment before it does
        code = _process(node).wait(timeout=30)
        if code < 0:
            return f" of {signal.Signals(-code).name}"
    return ""


class _Worker:
    """Writes down where this worker is: "while collecting" a file, "while running" or "after" a test."""

    def __init__(self, note: Path) -> None:
        self._file = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def _write(self, what: str, name: str) -> None:
        text = f"{what}\n{name}".encode()
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))

    def pytest_collectstart(self, collector: pytest.Collector) -> None:
        if isinstance(collector, pytest.File):
            self._write("while collecting", collector.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write("while running", nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._write("after", nodeid)


class _Controller:
    """Watches the workers' processes, and ends the run when one dies."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._notes = tempfile.TemporaryDirectory(prefix="pytest-notes-")
        self._watched: list[Any] = []
        self._reported: set[str] = set()
        self._is_over = False
        self._is_interrupted = False

    def _note(self, node: Any) -> tuple[str, str]:
        """What a worker last wrote down."""
        note = Path(self._notes.name, node.gateway.id)
        text = note.read_text(encoding="utf-8") if note.exists() else ""
        what, _, name = text.partition("\n")
        return what or "while it started", name

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["note"] = str(Path(self._notes.name, node.gateway.id))
        self._watched.append(node)
        threading.Thread(target=self._watch, args=(node,), daemon=True).start()

    def _watch(self, node: Any) -> None:
        """Waits for the process, not for the end of its pipe, which a forked child may hold open."""
        with contextlib.suppress(ChildProcessError):  # it is gone, and xdist has asked how
            os.waitid(os.P_PID, _process(node).pid, os.WEXITED | os.WNOWAIT)
            if not self._is_over:
                node.notify_inproc("errordown", node=node, error="its process has ended")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        if error is not None:
            reason = self._report(node)
            # Raised through xdist's loop: asked to stop, it would wait for every worker to finish its files.
            pytest.exit(reason, returncode=pytest.ExitCode.TESTS_FAILED)

    def _report(self, node: Any) -> str:
        """Fails the test, or the file, that the dead worker was at; what to say of it in a line."""
        what, name = self._note(node)
        reason = f"worker {node.gateway.id} died{_cause(node)} {what} {name}".rstrip()
        if node.gateway.id not in self._reported:
            self._reported.add(node.gateway.id)
            name = name or f"worker {node.gateway.id}"
            place = (name.partition("::")[0], None, name)
            report = pytest.TestReport(name, place, {}, "failed", reason, "call")
            self._config.hook.pytest_runtest_logreport(report=report)
        return reason

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self._is_interrupted = excinfo.errisinstance(KeyboardInterrupt)  # Ctrl-C reaches the workers, too

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Before workers are told to end: who is gone has died, even where xdist tripped over it first."""
        self._is_over = True
        options = os.WEXITED | os.WNOWAIT | os.WNOHANG
        for node in self._watched if not self._is_interrupted else ():
            with contextlib.suppress(ChildProcessError):
                if os.waitid(os.P_PID, _process(node).pid, options) is not None:
                    self._report(node)
                    session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True, specname="pytest_sessionfinish")
    def pytest_after_the_ends(self, session: pytest.Session) -> None:
        """After they have ended: a fault at the interpreter's end is one, too."""
        for node in self._watched if not self._is_interrupted else ():
            code = _process(node).poll()
            if code is not None and -code in _FAULTS:
                self._report(node)
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for node in self._watched:
            what, name = self._note(node)
            if what != "after":
                terminalreporter.write_line(f"{node.gateway.id} ended {what} {name}")

    def pytest_unconfigure(self) -> None:
        self._notes.cleanup()
