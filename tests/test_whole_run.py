"""A run of the tests always ends: dead workers, the limit, Ctrl-C. Real runs, of small files made here."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.source_tree import ROOT

DIE = "os.kill(os.getpid(), signal.SIGKILL)"
ENTRY = (sys.executable, "-m", "tests.whole_run", "-p", "tests.dead_workers", "-p", "no:cacheprovider")
FIVE_FILES = "abcde"


def _write(folder: Path, name: str, *lines: str) -> None:
    (folder / name).write_text(
        "\n".join(("import atexit, os, signal, time, pytest", *lines)), encoding="utf-8"
    )


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Five files whose tests pass: with --dist loadfile a worker holds two, and more are waiting."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    for name in FIVE_FILES:
        _write(folder, f"test_{name}.py", *(f"def test_{name}{i}(): time.sleep(0.1)" for i in range(2)))
    return folder


def _run(files: Path, *options: str) -> tuple[int, str]:
    """The exit code of a run on two workers, and what it printed; on an idle machine it takes ten seconds."""
    command = (*ENTRY, "-n", "2", "--dist", "loadfile", *options, str(files))
    done = run_command(*command, timeout_s=150.0, COLUMNS="300")
    return done.returncode, done.stdout + done.stderr


def _failures(output: str) -> list[str]:
    """The lines of pytest's summary, beginning with the test's name."""
    return re.findall(r"^FAILED (?:\S*/)?(.*)", output, re.MULTILINE)


def _wait_for(path: Path) -> int:
    """The process that a test noted there."""
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, f"{path.name} has not appeared"
        time.sleep(0.02)
    return int(path.read_text())


def _assert_gone(process_id: int) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(") ")[2][0]
        assert state in "ZX", f"process {process_id} was left"


def _write_long_test(files: Path) -> Path:
    """A test of minutes, with a process in a session of its own that ends for no signal but SIGKILL."""
    note = files / "process"
    _write(
        files,
        "test_long.py",
        "import subprocess",
        "def test_of_minutes():",
        "    deaf = 'trap \"\" INT TERM HUP; while true; do sleep 1; done'",
        "    child = subprocess.Popen(['bash', '-c', deaf], start_new_session=True)",
        f"    open({str(note)!r}, 'w').write(str(child.pid))",
        "    time.sleep(600)",
    )
    return note


def test_a_run_in_which_nobody_dies_passes(files: Path) -> None:
    code, output = _run(files)

    assert code == 0, output
    assert " 10 passed " in output.splitlines()[-1]


@pytest.mark.parametrize(
    ("file", "name", "lines"),
    [
        ("test_a.py", "test_a.py::test_dies", ("def test_dies():", f"    {DIE}", "def test_after(): pass")),
        ("test_c.py", "test_c.py::test_b", ("def test_b():", "    os.abort()", "def test_c(): pass")),
        (
            "test_e.py",
            "test_e.py::test_last",
            ("@pytest.fixture", "def fixture():", f"    {DIE}", "def test_last(fixture): pass"),
        ),
        ("test_b.py", "test_b.py", (DIE, "def test_never(): pass")),
        ("test_d.py", "test_", ("atexit.register(os.abort)", "def test_passes(): pass")),
    ],
    ids=["first test", "by a fault", "in a fixture", "during collection", "at the interpreter's end"],
)
def test_a_dead_worker_ends_the_run_with_the_tests_name(
    files: Path, file: str, name: str, lines: tuple[str, ...]
) -> None:
    _write(files, file, *lines)

    code, output = _run(files)

    assert code == pytest.ExitCode.TESTS_FAILED, output
    failure = _failures(output)[0]
    assert failure.startswith(name), output
    assert "died of SIG" in failure


def test_neither_a_busy_worker_nor_a_forked_child_keeps_the_run_from_ending(files: Path) -> None:
    """The child holds the dead worker's pipe: its end would tell nobody for minutes."""
    note = _write_long_test(files)
    _write(
        files,
        "test_a.py",
        "def test_dies():",
        "    if os.fork() == 0:",
        "        time.sleep(600)",
        f"    while not os.path.exists({str(note)!r}): time.sleep(0.02)",
        f"    {DIE}",
    )
    for name in FIVE_FILES[1:]:
        (files / f"test_{name}.py").unlink()

    code, output = _run(files)

    assert code == pytest.ExitCode.TESTS_FAILED, output
    assert _failures(output)[0].startswith("test_a.py::test_dies - worker gw")
    _assert_gone(_wait_for(note))


def test_past_its_limit_a_run_ends_and_says_where_it_was(files: Path) -> None:
    note = _write_long_test(files)

    code, output = _run(files, "--limit", "0.4")

    assert code == 124, output
    assert output.splitlines()[-1] == "launch/test: ended at the limit of 0.4 minutes (--limit)."
    assert re.search(r"gw\d ended while running \S*test_long.py::test_of_minutes", output)
    _assert_gone(_wait_for(note))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(files: Path, number: signal.Signals) -> None:
    note = _write_long_test(files)
    command = (*ENTRY, "-n", "2", "--dist", "loadfile", str(files))
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    started = _wait_for(note)

    os.kill(run.pid, number)
    output, _ = run.communicate(timeout=150)

    assert run.returncode == 128 + number, output
    assert output.splitlines()[-1] == f"launch/test: ended by {number.name}."
    _assert_gone(started)


def test_a_run_without_workers_that_dies_says_of_what(files: Path) -> None:
    _write(files, "test_a.py", "def test_dies(): os.abort()")

    code, output = _run(files, "-n", "0")

    assert code == 128 + signal.SIGABRT
    assert output.splitlines()[-1] == "launch/test: pytest died of SIGABRT."


def test_an_instruction_set_that_nobody_has_is_refused(files: Path) -> None:
    code, output = _run(files, "--instruction-set", "abacus")

    assert code == 2
    assert "invalid choice: 'abacus'" in output
