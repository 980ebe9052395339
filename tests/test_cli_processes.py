"""The command line in processes of its own: torchrun, kill -9, Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from addertrain.recipe import load_recipe
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory
from tests.commands import run_command
from tests.ranks import on_ranks
from tests.source_tree import ROOT
from tests.train.small_runs import DIGITS, SHORT, assert_same_bits, final_weights, launched

EPOCHS = 20  # some seconds: long enough to be ended twice in the middle
STEPS = 5 * EPOCHS
OVERRIDES = [*SHORT, f"--schedule.epochs={EPOCHS}"]
FIT = ["-m", "addertrain", "fit", str(DIGITS), *OVERRIDES]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

pytestmark = pytest.mark.distributed


def _started(*command: str) -> subprocess.Popen[str]:
    """Starts a command in a process group of its own, as a shell does, one that Ctrl-C ends.

    Tests that a script starts in the background would pass on that it is to be ignored.
    """
    return subprocess.Popen(
        ("env", "--default-signal=INT", *command),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 100.0
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run did not come far enough in time"
        time.sleep(0.02)


def _num_checkpoints(run: Path) -> int:
    return len(RunDirectory(run).store.newest_first())


def test_kill_9_ctrl_c_and_the_same_command_give_the_uninterrupted_run(tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    command = [sys.executable, *FIT, "--out", str(run)]
    process = _started(*command)
    _wait_for(lambda: _num_checkpoints(run) >= 1, process)
    process.kill()
    process.communicate()
    since = _num_checkpoints(run)

    process = _started(*command)
    _wait_for(lambda: _num_checkpoints(run) > since, process)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)

    assert "resuming epoch_" in said
    assert process.returncode == 130
    (line,) = errors.splitlines()
    assert line.startswith("addertrain: interrupted; the same command will resume from epoch_")
    assert line.endswith(f"in {run}")
    assert not (run / "summary.json").exists()

    for path in (run, whole):
        fit(load_recipe(DIGITS, OVERRIDES), path)
    assert_same_bits(final_weights(run), final_weights(whole))
    assert not [path for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]


def _fit_on_ranks(run: Path) -> int:
    launched()
    return fit(load_recipe(DIGITS, OVERRIDES), run).steps


def test_a_killed_rank_ends_the_launcher_soon_and_ranks_go_on_from_there(tmp_path: Path) -> None:
    """tests/faults kills the ranks of many runs, under launch/torchrun, and compares their weights."""
    run = tmp_path / "run"
    process = _started(*TORCHRUN, *FIT, "--out", str(run))
    _wait_for(lambda: _num_checkpoints(run) >= 2, process)
    since = time.monotonic()

    os.kill(_rank_process(process.pid, rank=1), signal.SIGKILL)
    said, _ = process.communicate(timeout=60)

    assert process.returncode != 0
    assert time.monotonic() - since < 20, "no signal handler may wait for the dead rank"
    for words in ("2 processes on cpu; new run", f"epoch  1/{EPOCHS}"):
        assert said.count(words) == 1, "one rank speaks"
    assert not (run / "summary.json").exists()
    assert on_ranks(2, _fit_on_ranks, run) == [STEPS, STEPS]


def _rank_process(launcher: int, *, rank: int) -> int:
    """The process id of a rank by its environment."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"PPid:\t{launcher}\n" not in (entry / "status").read_text():
                    continue
                if f"\0RANK={rank}\0".encode() in b"\0" + (entry / "environ").read_bytes():
                    return int(entry.name)
            except OSError:
                continue
    raise AssertionError(f"no process of rank {rank}")


def test_errors_come_from_one_rank(tmp_path: Path) -> None:
    result = run_command(*TORCHRUN, *FIT, "--optim.lrr=1", "--out", str(tmp_path / "run"))

    assert result.returncode != 0
    assert result.stderr.count("addertrain: error: ") == 1
    assert "did you mean 'optim.lr'?" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_signal_to_the_launcher_saves_on_all_ranks_and_ends_with_75(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = _started("launch/torchrun", "--nproc-per-node", "2", *FIT[2:], "--out", str(run))
    _wait_for(lambda: _num_checkpoints(run) >= 1, process)

    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 75, errors
    newest = RunDirectory(run).store.newest_first()[0].name
    said, end = errors.splitlines()
    assert said.startswith(f"addertrain: saved {newest} after SIGTERM to this process; the same command will")
    assert end == (
        "launch/torchrun: the ranks saved and ended after a signal (with exit code 75); the same command "
        "resumes the run"
    )


@pytest.mark.long
def test_ranks_do_not_outlive_a_killed_launcher(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = _started("launch/torchrun", "--nproc-per-node", "2", *FIT[2:], "--out", str(run))
    _wait_for(lambda: _num_checkpoints(run) >= 1, process)

    process.kill()
    _, errors = process.communicate(timeout=60)  # the ranks hold the pipes: it ends when they do

    newest = RunDirectory(run).store.newest_first()[0].name
    assert errors.startswith(f"addertrain: saved {newest} after SIGTERM")
