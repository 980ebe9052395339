"""Which checkpoints stay when one has been saved."""

from pathlib import Path

import pytest

from addertrain.checkpoint.retention import Retention
from addertrain.checkpoint.store import CheckpointStore
from tests.checkpoint.epochs import five_epochs, save_epoch


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return five_epochs(tmp_path)


def _path(store: CheckpointStore, epoch: int) -> Path:
    return store.path_for(epoch=epoch, global_step=10 * epoch)


def _damage(path: Path) -> None:
    with (path / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x00")


def _epochs(store: CheckpointStore) -> list[int]:
    return [int(path.name[6:10]) for path in store.newest_first()]


def test_the_last_and_the_best_stay(store: CheckpointStore) -> None:
    Retention(store, keep=2).prune(_path(store, 5), best="epoch_0002_step_000020")

    assert _epochs(store) == [5, 4, 2]


def test_the_only_one_stays(store: CheckpointStore) -> None:
    Retention(store, keep=0).prune(_path(store, 5), best=None)

    assert _epochs(store) == [5]


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_one_of_a_later_step_takes_no_place(store: CheckpointStore, keep: int) -> None:
    _damage(_path(store, 5))
    (store.folder / "epoch_0009_step_000999").mkdir()

    Retention(store, keep).prune(_path(store, 4), best=None)

    assert _epochs(store) == [9, 5, 4, 3][: keep + 2], "what was saved stays, and as many as asked for"


def test_a_damaged_one_of_an_earlier_step_takes_no_place(store: CheckpointStore) -> None:
    _damage(_path(store, 4))
    retention = Retention(store, keep=2)

    retention.prune(_path(store, 5), best=None)
    assert _epochs(store) == [5, 4, 3]

    retention.prune(save_epoch(store, 6), best=None)
    assert _epochs(store) == [6, 5]
