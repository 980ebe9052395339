"""Whole runs on pictures: through either loader, on ranks, with pictures in TensorBoard."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from addertrain.data.beton_format import read_index
from addertrain.data.order import sample_order
from addertrain.recipe import Recipe, load_recipe
from addertrain.train.run import fit
from addertrain.train.run_directory import Summary
from addertrain.train.tensorboard import picture_grid
from tests.commands import run_command
from tests.ranks import on_ranks
from tests.source_tree import ROOT
from tests.train.small_runs import launched

RECIPE = ROOT / "recipes" / "imagenette" / "resnet18.yaml"


def recipe(root: Path, *overrides: str) -> Recipe:
    words = ["--data.name=folder", f"--data.root={root}", "--data.image_size=32", "--model.name=resnet20"]
    words += ["--data.global_batch_size=16", "--schedule.epochs=2", "--train.recalibrate_batches=1"]
    return load_recipe(RECIPE, [*words, "--data.threads=1", "--data.mixup=0.2", *overrides])


def test_a_run_through_ffcv_ends_with_pictures_of_its_input(data_root: Path, tmp_path: Path) -> None:
    summary = fit(recipe(data_root), tmp_path / "run")
    assert (summary.steps, summary.epochs) == (4, 2)
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    (picture,) = events.Images("images/train")
    assert (picture.width, picture.height) == (4 * 32, 4 * 32)


def test_a_run_through_torchvision_differs_by_interpolation_alone(data_root: Path, tmp_path: Path) -> None:
    summary = fit(recipe(data_root, "--data.loader=torchvision", "--schedule.epochs=1"), tmp_path / "run")
    assert summary.steps == 2


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
