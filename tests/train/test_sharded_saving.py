"""Saves of sharded state that fail on one rank."""

from pathlib import Path

import pytest
import torch.distributed as dist
from torch import Tensor

from addertrain.checkpoint import sharded_write
from addertrain.checkpoint.files import verify_checkpoint
from addertrain.errors import CheckpointError
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory
from tests.ranks import on_ranks
from tests.train.small_runs import TellFailedSaves, launched, short_recipe

pytestmark = pytest.mark.distributed


def _fit_with_a_full_disk(run: Path) -> list[str]:
    """The second rank has no room for its pieces of the second save."""
    launched()
    told: list[str] = []
    write_tensors = sharded_write.write_tensors

    def full_disk(path: Path, tensors: dict[str, Tensor]) -> dict[str, int | str]:
        if dist.get_rank() == 1 and "step_000004" in path.parent.name:
            raise OSError(28, "No space left on device")
        return write_tensors(path, tensors)

    sharded_write.write_tensors = full_disk
    settings = ("--train.strategy=fsdp", "--train.save_every_steps=2", "--schedule.epochs=1")
    try:
        fit(short_recipe(*settings), run, callbacks=[TellFailedSaves(told)])
    except CheckpointError as error:
        told.append(f"ended: {error}")
    return told


def test_a_rank_without_room_fails_the_save_on_all(tmp_path: Path) -> None:
    first, second = on_ranks(2, _fit_with_a_full_disk, tmp_path / "run")

    assert first == second
    assert len(first) == 1
    assert "rank 1: [Errno 28] No space left on device" in first[0]
    whole = RunDirectory(tmp_path / "run").store.newest_first()
    assert [path.name[-1] for path in whole] == ["5", "2"]
    for path in whole:
        assert "optimizer.part_0001.safetensors" in verify_checkpoint(path)["files"]
    assert not [path for path in (tmp_path / "run/checkpoints").iterdir() if path.name.startswith(".")]
