"""A rank that is stopped keeps its sockets open and says nothing: the time-out of the others notices it."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.campaign import SECONDS_TO_COME
from tests.faults.launcher import Launcher
from tests.faults.rank import read_note
from tests.train.small_runs import DIGITS

WORDS = ["--schedule.epochs=2", "--train.save_every_steps=5", "--train.timeout_seconds=20"]

pytestmark = [pytest.mark.distributed, pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(900)]


@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_stopped_rank_is_given_up_and_the_run_resumed(rank: int, strategy: str, tmp_path: Path) -> None:
    command = ["fit", str(DIGITS), *WORDS, f"--train.strategy={strategy}", "--out", str(tmp_path / "run")]
    launcher = Launcher(tmp_path, command, max_restarts=1)
    deadline = time.monotonic() + SECONDS_TO_COME
    while (note := read_note(launcher.notes, rank)) is None or note.doing != "steps" or note.count < 8:
        assert time.monotonic() < deadline, launcher.tail()
        time.sleep(0.005)

    os.kill(note.process_id, signal.SIGSTOP)
    code = launcher.wait(seconds=SECONDS_TO_COME)

    said = launcher.tail()
    assert code == 0, said
    assert "starting the ranks of this machine again (1 restarts left)" in said
    assert "; resuming epoch_" in said
    if rank == 1:
        assert "expected an answer of all ranks within 20 s, got: " in said
