"""Saves that fail, and checkpoints that are damaged or not the run's: what stays, and what counts."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from torch import Tensor

from addertrain.checkpoint.files import read_manifest, read_tensors, write_checkpoint
from addertrain.errors import CheckpointError
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory
from addertrain.train.signals import SignalWatch
from addertrain.train.strategies import checkpoint_io
from tests.ranks import on_ranks
from tests.train.small_runs import (
    TellFailedSaves,
    assert_same_bits,
    final_weights,
    launched,
    rewind,
    short_recipe,
)


def _names(run: Path) -> list[str]:
    return [path.name for path in reversed(RunDirectory(run).store.newest_first())]


class FullDisk:
    """Stands in for `write_checkpoint`: has no room from the n-th write on, for so many of them."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.last, self.number = first, first + count, 0

    def __call__(self, *contents: Any) -> None:
        self.number += 1
        if self.first <= self.number < self.last:
            raise OSError(28, "No space left on device")
        write_checkpoint(*contents)


def _fit_on_a_full_disk(run: Path, first: int, count: int, *, goes_on: bool) -> list[str]:
    told: list[str] = []
    words = ["--train.save_every_steps=2", "--schedule.epochs=2"]
    if not goes_on:
        words.append("--train.on_save_failure=stop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_io, "write_checkpoint", FullDisk(first, count))
        try:
            fit(short_recipe(*words), run, callbacks=[TellFailedSaves(told)] if goes_on else [])
        except CheckpointError as error:
            return [*told, f"ended: {error}"]
    return told


def test_a_failed_save_is_told_and_training_goes_on(finished: Path, tmp_path: Path) -> None:
    (told,) = _fit_on_a_full_disk(tmp_path / "run", 2, 1, goes_on=True)

    assert "epoch_0000_step_000004: expected to write a checkpoint, got: [Errno 28] No space left" in told
    assert [name[-1] for name in _names(tmp_path / "run")] == list("25680")
    assert (tmp_path / "run/checkpoints/latest").read_text().strip() == "epoch_0002_step_000010"


def test_an_accuracy_whose_save_failed_passes_to_no_other_checkpoint(finished: Path, tmp_path: Path) -> None:
    _fit_on_a_full_disk(tmp_path / "run", 3, 1, goes_on=True)

    states = {path.name: _best(path) for path in RunDirectory(tmp_path / "run").store.newest_first()}
    assert states["epoch_0001_step_000006"] == states["epoch_0001_step_000008"] == (None, None)
    assert states["epoch_0002_step_000010"][0] == "epoch_0002_step_000010"


def _best(checkpoint: Path) -> tuple[str | None, float | None]:
    state = read_manifest(checkpoint)["state"]["best"]
    return state["checkpoint"], state["top1"]


def test_a_checkpoint_of_a_later_step_displaces_none_and_ends_no_run(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    rewind(run, to_epoch=1)
    stray = Path(
        shutil.copytree(
            run / "checkpoints/epoch_0001_step_000005", run / "checkpoints/epoch_0009_step_000999"
        )
    )
    (stray / "model.safetensors").write_bytes(b"damaged")

    summary = fit(short_recipe("--train.keep_checkpoints=1"), run)

    assert (summary.epochs, summary.checkpoint) == (3, "epoch_0003_step_000015")
    assert (run / "checkpoints/latest").read_text().strip() == "epoch_0003_step_000015"
    assert {"epoch_0003_step_000015", "epoch_0009_step_000999"} <= set(_names(run))
    assert_same_bits(_weights(run, "epoch_0003_step_000015"), final_weights(finished))


def _weights(run: Path, name: str) -> dict[str, Tensor]:
    files = ("model", "optimizer", "rank_buffers")
    return {
        key: value for file in files for key, value in read_tensors(run / "checkpoints" / name, file).items()
    }


def test_a_failed_save_can_end_the_training(tmp_path: Path) -> None:
    (ended,) = _fit_on_a_full_disk(tmp_path / "run", 2, 1, goes_on=False)

    assert ended.startswith("ended: ")
    assert "the same command resumes" in ended
    assert _names(tmp_path / "run")[:1] == ["epoch_0000_step_000002"]
    assert not (tmp_path / "run/summary.json").exists()


def test_a_run_whose_last_save_failed_has_not_finished(tmp_path: Path) -> None:
    *told, ended = _fit_on_a_full_disk(tmp_path / "run", 6, 9, goes_on=True)

    assert not told
    assert ended.startswith("ended: ")
    assert (tmp_path / "run/checkpoints/latest").read_text().strip() == "epoch_0001_step_000008"
    assert not (tmp_path / "run/summary.json").exists()


def _full_disk_of_the_first_rank(run: Path) -> list[str]:
    launched()
    return _fit_on_a_full_disk(run, 2, 1 if dist.get_rank() == 0 else 0, goes_on=True)


def test_all_ranks_learn_of_a_failed_save(tmp_path: Path) -> None:
    first, second = on_ranks(2, _full_disk_of_the_first_rank, tmp_path / "run")

    assert first == second
    assert len(first) == 1


def test_a_signal_is_not_answered_where_nothing_could_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_io, "write_checkpoint", FullDisk(1, 99))

    with SignalWatch() as watch:
        os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(CheckpointError, match="No space left"):
            fit(short_recipe(), tmp_path / "run", signals=watch)
        assert not watch.is_answered
