"""A checkpoint that is held can be read after its run has removed it."""

import shutil
from pathlib import Path

import pytest

from addertrain.checkpoint import CheckpointError, held
from addertrain.checkpoint.files import verify_checkpoint
from addertrain.checkpoint.held import held_checkpoint
from tests.report.made_up_runs import made_up_run
from tests.train.small_runs import short_recipe


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made_up_run(tmp_path / "run", short_recipe())


def _silent(line: str) -> None:
    raise AssertionError(line)


def _checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_a_checkpoint_that_its_run_removes_can_still_be_read(run: Path) -> None:
    with held_checkpoint(run, _silent) as checkpoint:
        shutil.rmtree(checkpoint.checkpoint)

        assert checkpoint.files.name == checkpoint.checkpoint.name == "epoch_0001_step_000005"
        assert verify_checkpoint(checkpoint.files)["epoch"] == 1

    assert _checkpoints(run) == []


def test_nothing_is_left_and_nothing_of_the_runs_is_removed(run: Path) -> None:
    before = _checkpoints(run)

    with held_checkpoint(run / "checkpoints" / before[0], _silent):
        pass

    assert _checkpoints(run) == before


def test_the_next_one_is_taken_where_the_newest_is_removed_while_it_is_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locate = held.locate_checkpoint

    def removed_meanwhile(path: Path, warn: object) -> Path:
        found = locate(path, _silent)
        monkeypatch.setattr(held, "locate_checkpoint", locate)
        made_up_run(run, short_recipe(), epoch=2)
        shutil.rmtree(found)
        return found

    monkeypatch.setattr(held, "locate_checkpoint", removed_meanwhile)
    with held_checkpoint(run, _silent) as checkpoint:
        assert checkpoint.files.name == "epoch_0002_step_000010"


def test_what_is_damaged_is_told_and_not_waited_for(run: Path) -> None:
    (run / "checkpoints" / "epoch_0001_step_000005" / "model.safetensors").write_bytes(b"")

    with pytest.raises(CheckpointError, match="has 0 bytes"), held_checkpoint(run, _silent):
        pass


def test_a_folder_that_takes_no_links_is_read_as_it_is(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(held.os, "link", refused)
    with held_checkpoint(run, _silent) as checkpoint:
        assert checkpoint.files == checkpoint.checkpoint
    assert _checkpoints(run) == ["epoch_0001_step_000005"]
