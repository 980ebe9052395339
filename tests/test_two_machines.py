"""launch/torchrun over two machines, for real: each has a network of its own, and a cable between them."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from addertrain.checkpoint.files import verify_checkpoint
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory
from tests.ranks import on_ranks
from tests.train.small_runs import DIGITS, SHORT, assert_same_bits, final_weights, launched, short_recipe
from tests.two_machines import ADDRESSES, TwoMachines, two_machines

pytestmark = pytest.mark.distributed


def _launch(machines: TwoMachines, *words: str) -> None:
    meeting = ("--nnodes", "2", "--rdzv-endpoint", ADDRESSES[0], "--nproc-per-node", "1")
    for machine in (0, 1):
        machines.start(machine, "launch/torchrun", *meeting, "fit", str(DIGITS), *SHORT, *words)


def _wait_for(what: str, condition: Callable[[], bool], machines: TwoMachines, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        said = f"{machines.log(0)}\n-- second machine:\n{machines.log(1)}"
        assert time.monotonic() < deadline, f"{what} took longer than {seconds:g} s\n{said}"
        time.sleep(0.1)


def _ended(machines: TwoMachines) -> list[int]:
    for process in machines.started:
        process.wait(timeout=150)
    return [process.returncode for process in machines.started]


def test_two_machines_train_together_and_save_when_one_is_told_to_leave(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with two_machines() as machines:
        _launch(machines, "--schedule.epochs=400", "--out", str(run))
        _wait_for("the first epoch", lambda: (run / "checkpoints" / "latest").exists(), machines, seconds=100)

        machines.started[1].send_signal(signal.SIGTERM)

        assert _ended(machines) == [75, 75], machines.log(0) + machines.log(1)
        newest = RunDirectory(run).store.newest_first()[0]
        assert verify_checkpoint(newest)["world_size"] == 2
        assert f"addertrain: saved {newest.name} after a signal; the same command will" in machines.log(0)
        assert "2 processes on cpu; new run" in machines.log(0)
        assert machines.log(1).startswith(
            "launch/torchrun: the ranks saved and ended after a signal (with exit code 75)"
        )


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_machine_that_comes_and_goes_changes_the_ranks_and_nothing_else(tmp_path: Path) -> None:
    run = tmp_path / "run"
    meeting = ("--nnodes", "1:2", "--rdzv-endpoint", ADDRESSES[0], "--nproc-per-node", "1")
    meeting += ("--rdzv-conf", "last_call_timeout=2")
    words = ("fit", str(DIGITS), *SHORT, "--schedule.epochs=150", "--train.timeout_seconds=20")
    with two_machines() as machines:
        machines.start(0, "launch/torchrun", *meeting, *words, "--out", str(run))
        _wait_for("one", lambda: "1 process on cpu; new run" in machines.log(0), machines, seconds=300)
        _wait_for("the first epoch", lambda: (run / "checkpoints" / "latest").exists(), machines, seconds=100)

        machines.start(1, "launch/torchrun", *meeting, *words, "--out", str(run))
        _wait_for("two", lambda: "2 processes on cpu; resuming" in machines.log(0), machines, seconds=300)
        machines.kill(1)
        _wait_for("one again", lambda: "1 process on cpu; resuming" in machines.log(0), machines, seconds=300)

        machines.started[0].wait(timeout=300)
        assert machines.started[0].returncode == 0, machines.log(0)
    assert verify_checkpoint(RunDirectory(run).store.newest_first()[0])["global_step"] == 150 * 5


def _fit_on_ranks(run: Path, *overrides: str) -> None:
    launched()
    fit(short_recipe(*overrides), run)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seconds_without", [8, 80])
def test_a_pulled_cable_is_an_error_in_time_and_a_resumption(tmp_path: Path, seconds_without: int) -> None:
    """8 s: the ranks give up, the agents stay in touch. 80 s: the agents lose each other too."""
    run = tmp_path / "run"
    words = ("--schedule.epochs=20", "--train.timeout_seconds=4")
    with two_machines() as machines:
        _launch(machines, *words, "--out", str(run))
        _wait_for("the first epoch", lambda: (run / "checkpoints" / "latest").exists(), machines, seconds=100)

        machines.cable(is_plugged=False)
        pulled = time.monotonic()
        complaint = "expected an answer of all ranks within 4 s, got: Timed out"
        _wait_for("the error", lambda: complaint in machines.log(0), machines, seconds=15)
        _wait_for("the error", lambda: complaint in machines.log(1), machines, seconds=15)
        time.sleep(max(0.0, pulled + seconds_without - time.monotonic()))
        machines.cable(is_plugged=True)

        _wait_for("to resume", lambda: "; resuming epoch_" in machines.log(0), machines, seconds=150)
        assert _ended(machines) == [0, 0], machines.log(0) + machines.log(1)
    on_ranks(2, _fit_on_ranks, tmp_path / "whole", *words, timeout_s=300)
    assert_same_bits(final_weights(run), final_weights(tmp_path / "whole"))
