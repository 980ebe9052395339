"""Disks that fill up, refuse and vanish while a run writes to them: it goes on as if nothing had been."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer

from addertrain.checkpoint import CheckpointError
from addertrain.checkpoint.store import locate_checkpoint
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory
from tests.faults.disks import Disk, FullDisk, ReadOnlyFolder, RemovedFolder, small_disk
from tests.ranks import on_ranks
from tests.train.small_runs import assert_same_bits, final_weights, launched, short_recipe

# A checkpoint of this run takes 0.8 MB, 15 steps in three epochs.
WORDS = ["--train.save_every_steps=2", "--train.keep_checkpoints=2"]

pytestmark = pytest.mark.faults


class Acting(Callback):
    """Has the first rank of a run call `actions` after their steps."""

    def __init__(self, actions: dict[int, Callable[[], None]]) -> None:
        self._actions = actions

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.is_global_zero and (action := self._actions.pop(trainer.global_step, None)):
            action()


@pytest.fixture
def disk_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.getfixturevalue("disk") is not FullDisk:
        yield tmp_path
        return
    with small_disk(tmp_path / "small", megabytes=8) as folder:
        yield folder


@pytest.mark.parametrize("disk", [FullDisk, ReadOnlyFolder, RemovedFolder])
def test_training_goes_on_without_a_disk_and_saves_again(
    disk: type[Disk], disk_folder: Path, finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = disk_folder / "run"
    folder = RunDirectory(run).store.folder
    broken = disk()

    acting = Acting({5: lambda: broken.break_it(folder), 11: lambda: broken.mend(folder)})
    fit(short_recipe(*WORDS), run, callbacks=[acting])

    said = capfd.readouterr().err
    warnings = [line for line in said.splitlines() if "training continues, but has to write" in line]
    assert all(line.startswith("addertrain: warning: ") for line in warnings)
    assert sum("expected to write a checkpoint, got:" in line for line in warnings) >= 2
    assert "Traceback" not in said
    assert_same_bits(final_weights(run), final_weights(finished))
    names = [path.name for path in folder.iterdir() if path.name.startswith("epoch_")]
    assert "epoch_0002_step_000014" in names, "the first save after the disk was mended"


@pytest.mark.parametrize("disk", [ReadOnlyFolder])
def test_the_last_good_checkpoint_stays_and_the_last_one_has_to_work(
    disk: type[Disk], disk_folder: Path, finished: Path
) -> None:
    run = disk_folder / "run"
    folder = RunDirectory(run).store.folder
    broken = disk()

    def break_behind_the_eighth() -> None:
        while not (folder / "epoch_0001_step_000008").exists():  # it is written beside the training
            time.sleep(0.001)
        broken.break_it(folder)

    with pytest.raises(CheckpointError) as caught:
        fit(short_recipe(*WORDS), run, callbacks=[Acting({9: break_behind_the_eighth})])

    assert "epoch_0003_step_000015: expected to write a checkpoint, got:" in str(caught.value)
    assert str(caught.value).endswith("fix this, and the same command resumes from them")
    assert not (run / "summary.json").exists()
    broken.mend(folder)
    assert locate_checkpoint(run, pytest.fail).name == "epoch_0001_step_000008"
    fit(short_recipe(*WORDS), run)
    assert_same_bits(final_weights(run), final_weights(finished))


def _fit_without_a_folder(run: Path) -> str:
    launched()
    folder = RunDirectory(run).store.folder
    recipe = short_recipe(*WORDS, "--train.on_save_failure=stop", "--schedule.epochs=1")
    with pytest.raises(CheckpointError) as caught:
        fit(recipe, run, callbacks=[Acting({3: lambda: RemovedFolder().break_it(folder)})])
    return f"{dist.get_rank()}: {caught.value}"


@pytest.mark.long
@pytest.mark.distributed
def test_a_recipe_can_have_all_ranks_stop(tmp_path: Path) -> None:
    first, second = on_ranks(2, _fit_without_a_folder, tmp_path / "run")

    assert first.startswith("0: ")
    assert second.startswith("1: ")
    assert first[3:] == second[3:]
    assert "epoch_0000_step_000004: expected to write a checkpoint, got:" in first
