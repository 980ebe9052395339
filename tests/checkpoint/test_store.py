import os
from pathlib import Path

import pytest

from addertrain.checkpoint.store import CheckpointStore, is_checkpoint
from addertrain.errors import CheckpointError
from tests.checkpoint.epochs import five_epochs


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return five_epochs(tmp_path)


def _epochs(store: CheckpointStore) -> list[int]:
    return [int(path.name[6:10]) for path in store.newest_first()]


def _no_warning(line: str) -> None:
    raise AssertionError(line)


def test_names_say_epoch_and_step(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path).path_for(epoch=3, global_step=702).name == "epoch_0003_step_000702"


def test_newest_is_the_one_with_the_most_steps_even_past_six_digits(store: CheckpointStore) -> None:
    longest = store.path_for(epoch=150, global_step=1_000_000)
    longest.mkdir()

    assert store.newest_first()[0] == longest


def test_the_newest_whole_one_is_taken(store: CheckpointStore) -> None:
    assert store.newest_whole(_no_warning) == store.path_for(epoch=5, global_step=50)


def test_a_damaged_one_is_passed_over_with_a_warning_that_names_both(store: CheckpointStore) -> None:
    with (store.newest_first()[0] / "model.safetensors").open("r+b") as file:
        file.truncate(20)
    warnings: list[str] = []

    taken = store.newest_whole(warnings.append)

    assert taken == store.path_for(epoch=4, global_step=40)
    assert len(warnings) == 1
    assert "epoch_0005_step_000050" in warnings[0]
    assert "epoch_0004_step_000040" in warnings[0]
    assert "model.safetensors" in warnings[0]


def test_where_all_are_damaged_one_error_names_them(store: CheckpointStore) -> None:
    for path in store.newest_first():
        (path / "manifest.json").write_text("{")

    with pytest.raises(CheckpointError, match=r"epoch_0005.*epoch_0001.*--out") as caught:
        store.newest_whole(_no_warning)
    assert "\n" not in str(caught.value)


def test_without_checkpoints_there_is_none(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "absent").newest_whole(_no_warning) is None


def test_what_killed_processes_left_is_swept_and_nothing_else(store: CheckpointStore) -> None:
    for name in (".epoch_0006_step_000060.99999999.tmp", ".epoch_0001_step_000010.99999999.old"):
        (store.folder / name).mkdir()
    (store.folder / ".latest.99999999.tmp").write_text("epoch_0006_st")
    (store.folder / "notes.txt").write_text("mine")

    store.sweep()

    assert sorted(path.name for path in store.folder.iterdir() if not path.name.startswith("epoch")) == [
        "notes.txt"
    ]
    assert _epochs(store) == [5, 4, 3, 2, 1]


def test_what_another_process_is_writing_stays(store: CheckpointStore) -> None:
    name = f".epoch_0006_step_000060.{os.getppid()}.tmp"
    (store.folder / name).mkdir()

    store.sweep()

    assert (store.folder / name).is_dir()


def test_half_written_ones_are_no_checkpoints(store: CheckpointStore) -> None:
    (store.folder / ".epoch_0009_step_000090.99999999.tmp").mkdir()

    assert _epochs(store)[0] == 5


def test_latest_names_the_published_one(store: CheckpointStore) -> None:
    store.publish(store.path_for(epoch=5, global_step=50))

    assert (store.folder / "latest").read_text() == "epoch_0005_step_000050\n"
    assert not list(store.folder.glob(".latest*"))


def test_a_run_directory_is_no_checkpoint(store: CheckpointStore) -> None:
    assert is_checkpoint(store.newest_first()[0])
    assert not is_checkpoint(store.folder)


def test_a_renamed_checkpoint_still_is_one(store: CheckpointStore) -> None:
    renamed = store.newest_first()[0].rename(store.folder / "mine")

    assert is_checkpoint(renamed)
