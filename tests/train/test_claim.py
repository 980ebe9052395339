"""A run directory belongs to one process at a time, and to nobody once that is gone."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from addertrain.data import file_locks
from addertrain.errors import RunError
from addertrain.train import claim
from addertrain.train.claim import claimed

HOLD = """
import sys, time
from pathlib import Path
from addertrain.train.claim import claimed
with claimed(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "SECONDS_OF_PATIENCE", 0.1)


@pytest.fixture
def _no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As some network file systems answer."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(file_locks.fcntl, "flock", refuse)


def _silent(line: str) -> None:
    raise AssertionError(line)


def test_the_second_process_gets_one_line_and_a_killed_one_locks_nobody_out(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        words = rf"no other process uses, got one in which process {holder.pid} on .* trains; .* --out"
        with pytest.raises(RunError, match=words), claimed(run, _silent):
            raise AssertionError("two at once")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert (run / ".lock").exists()
    with claimed(run, _silent):
        pass
    assert not (run / ".lock").exists()


def test_what_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    with claimed(tmp_path / "runs" / "mine", _silent):
        pass

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    with claimed(tmp_path, _silent):
        (tmp_path / "kept").touch()

    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_where_nothing_can_be_written_others_complain(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with claimed(tmp_path / "file" / "run", _silent):
        assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("_no_locks")
def test_without_locks_a_living_process_counts(tmp_path: Path) -> None:
    parent = os.getppid()
    signature = claim._Signature(socket.gethostname(), parent, claim._beginning(parent))
    (tmp_path / ".lock.owner").write_text(signature.to_json())

    with pytest.raises(RunError, match=f"process {parent} on"), claimed(tmp_path, _silent):
        pass


@pytest.mark.usefixtures("_no_locks")
def test_without_locks_a_dead_process_and_its_number_count_for_nothing(tmp_path: Path) -> None:
    for process, began in ((99999999, "5"), (os.getppid(), "5")):
        signature = claim._Signature(socket.gethostname(), process, began)
        (tmp_path / ".lock.owner").write_text(signature.to_json())

        with claimed(tmp_path, _silent):
            assert (tmp_path / ".lock.owner").exists()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_no_locks")
def test_without_locks_another_machines_process_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / ".lock.owner").write_text(claim._Signature("elsewhere", 7, "5").to_json())
    said: list[str] = []

    with claimed(tmp_path, said.append):
        pass

    (line,) = said
    assert "process 7 on elsewhere has claimed this run directory" in line
