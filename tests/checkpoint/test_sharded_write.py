"""Checkpoints that several processes write at once, as threads do here."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from addertrain.checkpoint import sharded_write
from addertrain.checkpoint.files import (
    read_shapes,
    read_tensors,
    temporary_name,
    verify_checkpoint,
    write_checkpoint,
)
from addertrain.checkpoint.part_names import part_name, piece_name
from addertrain.checkpoint.sharded_write import OtherParts, write_part
from addertrain.errors import CheckpointError

COUNT = 3
WHOLE = {"conv.weight": torch.randn(5, 7), "bias": torch.randn(2).double(), "one": torch.randn(())}


def _pieces(process: int) -> dict[str, Tensor]:
    """Flat thirds, of which small tensors leave some processes nothing."""
    found = {}
    for name, tensor in WHOLE.items():
        size = -(-tensor.numel() // COUNT)
        if len(piece := tensor.flatten()[process * size : (process + 1) * size]):
            found[piece_name(name, process * size)] = piece
    return found


def _own(process: int) -> dict[str, dict[str, Tensor]]:
    return {part_name("optimizer", process): _pieces(process)}


def _write(path: Path, processes: list[int], *, is_in_a_hurry: bool = False) -> None:
    """The first process waits in this thread for those of `processes`, which write in others."""
    folder = temporary_name(path)
    threads = [threading.Thread(target=write_part, args=(folder, each, _own(each))) for each in processes]
    for thread in threads:
        thread.start()
    rest: dict[str, Any] = {"model": {"w": torch.ones(2)}, "optimizer": {}, "rank_buffers": {}}
    shapes = {"optimizer": {name: list(tensor.shape) for name, tensor in WHOLE.items()}}
    try:
        write_checkpoint(
            path, rest | _own(0), {"parts": shapes}, OtherParts(folder, COUNT, lambda: is_in_a_hurry)
        )
    finally:
        for thread in threads:
            thread.join()


def test_readers_see_whole_tensors(tmp_path: Path) -> None:
    path = tmp_path / "one"

    _write(path, [2, 1])

    verify_checkpoint(path)
    read = read_tensors(path, "optimizer")
    assert read.keys() == WHOLE.keys()
    for name, expected in WHOLE.items():
        assert torch.equal(read[name], expected)
        assert read[name].dtype == expected.dtype
    shapes = {name: entry["shape"] for name, entry in read_shapes(path, "optimizer").items()}
    assert shapes == {name: list(tensor.shape) for name, tensor in WHOLE.items()}
    names = {f"optimizer.part_{process:04d}.safetensors" for process in range(COUNT)}
    assert {file.name for file in path.iterdir()} == names | {
        "model.safetensors", "optimizer.safetensors", "rank_buffers.safetensors", "manifest.json",
    }  # fmt: skip
    assert [entry.name for entry in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize("process", range(COUNT))
def test_a_damaged_part_is_named(tmp_path: Path, process: int) -> None:
    path = tmp_path / "one"
    _write(path, [1, 2])
    file = path / f"optimizer.part_{process:04d}.safetensors"
    contents = bytearray(file.read_bytes())
    contents[-1] ^= 1
    file.write_bytes(contents)

    with pytest.raises(CheckpointError, match=f"part_{process:04d}.safetensors does not match its checksum"):
        verify_checkpoint(path)


def test_a_process_that_cannot_write_fails_the_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tensors = sharded_write.write_tensors

    def full_disk(path: Path, tensors: dict[str, Tensor]) -> dict[str, int | str]:
        if "part_0002" in path.name:
            raise OSError(28, "No space left on device")
        return write_tensors(path, tensors)

    monkeypatch.setattr(sharded_write, "write_tensors", full_disk)

    with pytest.raises(OSError, match=r"rank 2: .*No space left"):
        _write(tmp_path / "one", [1, 2])
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize("limit", ["_STILL_SECONDS", "_HURRIED_SECONDS"])
def test_a_lost_process_fails_the_save(limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded_write, limit, 0.2)

    with pytest.raises(OSError, match="rank 1 has written nothing for 0 s"):
        _write(tmp_path / "one", [2], is_in_a_hurry=limit == "_HURRIED_SECONDS")
    assert not list(tmp_path.iterdir())


def test_missing_elements_are_noticed() -> None:
    shapes = {name: list(tensor.shape) for name, tensor in WHOLE.items()}

    with pytest.raises(CheckpointError, match=r"here: expected 35 elements of conv\.weight, got 24"):
        sharded_write.assembled([_pieces(0), _pieces(1)], shapes, where="here")
