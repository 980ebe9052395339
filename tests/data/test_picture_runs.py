"""Whole runs on pictures: through either loader, on ranks, with pictures in TensorBoard."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from addertrain.data.beton.format import read_index
from addertrain.data.loaders.order import sample_order
from addertrain.recipe import Recipe, load_recipe
from addertrain.train.callbacks.tensorboard import picture_grid
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory, Summary
from tests.commands import run_command
from tests.ranks import on_ranks
from tests.source_tree import ROOT
from tests.train.small_runs import assert_resumed_exactly, launched, rewind

RECIPE = ROOT / "recipes" / "imagenette" / "resnet18.yaml"


def recipe(root: Path, *overrides: str) -> Recipe:
    words = ["--data.name=folder", f"--data.root={root}", "--data.image_size=32", "--model.name=resnet20"]
    words += ["--data.global_batch_size=16", "--schedule.epochs=2", "--train.recalibrate_batches=1"]
    return load_recipe(RECIPE, [*words, "--data.threads=1", "--data.mixup=0.2", *overrides])


# The pictures of the second epoch are larger; a checkpoint follows its first step of two.
GROWING = ("--data.first_image_size=32", "--data.image_size=64", "--data.grow_until=1", "--data.cutmix=0.2")
SAVING = ("--data.randaugment=5", "--train.save_every_steps=3", "--train.evaluate_uncalibrated=false")


@pytest.mark.parametrize("loader", ["ffcv", "torchvision"])
def test_a_run_on_pictures_shows_them_and_is_resumed_exactly_in_mid_epoch(
    loader: str, data_root: Path, tmp_path: Path
) -> None:
    one, whole, resumed = (
        recipe(data_root, f"--data.loader={loader}", *GROWING, *SAVING),
        tmp_path / "whole",
        tmp_path / "resumed",
    )
    summary = fit(one, whole)
    assert (summary.steps, summary.epochs) == (4, 2)
    (picture,) = EventAccumulator(str(whole)).Reload().Images("images/train")
    assert (picture.width, picture.height) == (4 * 32, 4 * 32)
    shutil.copytree(whole, resumed)
    rewind(resumed, to_step=3)

    fit(one, resumed)

    assert_resumed_exactly(resumed, whole)


def _fit_on_rank(root: Path, out: Path) -> Summary:
    launched()
    return fit(recipe(root, "--schedule.epochs=1"), out)


@pytest.mark.distributed
def test_two_ranks_train_through_ffcv(data_root: Path, tmp_path: Path) -> None:
    first, second = on_ranks(2, _fit_on_rank, data_root, tmp_path / "two")
    assert first == second
    assert (first.world_size, first.steps) == (2, 2)


def test_pictures_are_laid_out_in_rows() -> None:
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 3, 2, 2)
    grid = picture_grid(images)
    assert grid.shape == (3, 4, 8)
    assert grid[0, ::2, ::2].tolist() == [[0, 1, 2, 3], [4, 5, 0, 0]]
    assert picture_grid(torch.zeros(40, 1, 5, 7, dtype=torch.uint8)).shape == (1, 20, 28)


@pytest.mark.long
@pytest.mark.distributed
def test_a_picture_that_one_rank_cannot_read_ends_the_run_by_name(data_root: Path, tmp_path: Path) -> None:
    for name in ("train.beton", "train.beton.json"):
        shutil.copy(data_root / name, tmp_path)
    for name in ("val.beton", "val.beton.json"):
        (tmp_path / name).symlink_to(data_root / name.replace("val", "train"))
    bad = sample_order(0, 0, 45)[12].item()  # the second rank's in the first batch of 16
    with (tmp_path / "train.beton").open("r+b") as file:
        file.seek(int(read_index(tmp_path / "train.beton").offsets[bad]) + 300)
        file.write(b"damage")
    words = [f"--data.root={tmp_path}", "--data.name=folder", "--data.image_size=32", "--model.name=resnet20"]
    words += ["--data.global_batch_size=16", "--schedule.epochs=1", "--data.threads=1"]
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    command = ("-m", "addertrain", "fit", str(RECIPE), "--out", str(tmp_path / "run"), *words)
    result = run_command(*torchrun, *command)
    assert result.returncode != 0
    assert f"[rank 1] {tmp_path / 'train.beton'}: sample {bad}: expected the" in result.stderr


def _resnet50_command(root: Path, out: Path) -> list[str]:
    """ImageNet's recipe with few and small pictures: two epochs of five steps, a checkpoint after each."""
    words = ["--data.name=folder", f"--data.root={root}", "--data.image_size=64", "--data.threads=1"]
    words += ["--data.global_batch_size=8", "--schedule.epochs=2", "--train.recalibrate_batches=1"]
    words += ["--train.strategy=zero2", "--train.save_every_steps=1", "--train.keep_checkpoints=2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    recipe_file = str(ROOT / "recipes" / "imagenet" / "resnet50.yaml")
    return [*torchrun, "-m", "addertrain", "fit", recipe_file, "--out", str(out), *words]


def _steps_saved(run: Path) -> int:
    newest = next(iter(RunDirectory(run).store.newest_first()), None)
    return int(newest.name.rpartition("_")[2]) if newest else 0


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.distributed
def test_resnet50_through_ffcv_and_zero2_survives_kill_9(data_root: Path, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = _resnet50_command(data_root, killed)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    ) as run:
        while _steps_saved(killed) < 3:  # in the middle of the first epoch
            assert run.poll() is None
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGKILL)
    assert not (killed / "summary.json").exists()

    resumed = run_command(*command, timeout_s=500)
    straight = run_command(*_resnet50_command(data_root, whole), timeout_s=500)

    assert resumed.returncode == 0, resumed.stderr
    assert "resuming epoch_" in resumed.stdout
    assert straight.returncode == 0, straight.stderr
    results = [RunDirectory(path).read_summary() for path in (killed, whole)]
    assert results[0] is not None
    assert results[1] is not None
    assert results[0].steps == results[1].steps == 10
    assert results[0].weights_sha256 == results[1].weights_sha256
