from pathlib import Path
from typing import Any

import pytest
import torch

from addertrain.checkpoint import files
from addertrain.checkpoint.files import read_manifest, read_tensors
from addertrain.errors import CheckpointError
from addertrain.train.strategies.checkpoint_io import DirectoryCheckpointIO, check_plain


def _checkpoint() -> dict[str, Any]:
    return {
        "model": {"conv.weight": torch.randn(2, 3)},
        "optimizer": {
            "state": {"conv.weight": {"momentum_buffer": torch.randn(2, 3), "step": 30}},
            "param_groups": [{"lr": 0.1, "params": ["conv.weight"]}],
        },
        "rank_buffers": [{"norm.running_mean": torch.zeros(3)}, {"norm.running_mean": torch.ones(3)}],
        "position": {
            "epoch": 2, "batches": 0, "global_step": 30, "batches_per_epoch": 15, "is_evaluation_due": False,
        },
        "state": {"loader": {"epoch": 1, "batch": 15}},
        "foreign": {"callbacks": {"Mine": {"best": torch.tensor(0.5)}}},
    }  # fmt: skip


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    checkpoint = _checkpoint()
    plugin = DirectoryCheckpointIO({"seed": 7})

    plugin.save_checkpoint(checkpoint, tmp_path / "one")
    loaded = plugin.load_checkpoint(tmp_path / "one")

    assert all(loaded[key] == checkpoint[key] for key in ("position", "state", "foreign"))
    optimizer, expected = loaded["optimizer"], checkpoint["optimizer"]
    assert optimizer["param_groups"] == expected["param_groups"]
    assert optimizer["state"]["conv.weight"]["step"] == 30
    saved = expected["state"]["conv.weight"]["momentum_buffer"]
    assert torch.equal(optimizer["state"]["conv.weight"]["momentum_buffer"], saved)
    assert [own["norm.running_mean"].tolist() for own in loaded["rank_buffers"]] == [[0.0] * 3, [1.0] * 3]


def test_files_are_as_documented(tmp_path: Path) -> None:
    DirectoryCheckpointIO({"seed": 7}).save_checkpoint(_checkpoint(), tmp_path / "one")

    manifest = read_manifest(tmp_path / "one")

    assert (manifest["epoch"], manifest["batches"], manifest["global_step"]) == (2, 0, 30)
    assert manifest["seed"] == 7
    assert set(manifest["files"]) == {
        "model.safetensors",
        "optimizer.safetensors",
        "rank_buffers.safetensors",
    }
    assert set(read_tensors(tmp_path / "one", "optimizer")) == {"conv.weight.momentum_buffer"}
    assert set(read_tensors(tmp_path / "one", "rank_buffers")) == {
        "0/norm.running_mean",
        "1/norm.running_mean",
    }


def test_a_disk_that_is_full_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "flush_file", full_disk)

    with pytest.raises(
        CheckpointError, match=r"one: .*No space left on device.*the earlier checkpoints are intact"
    ):
        DirectoryCheckpointIO().save_checkpoint(_checkpoint(), tmp_path / "one")
    assert not list(tmp_path.iterdir())


def test_saving_leaves_the_callers_dictionary_alone(tmp_path: Path) -> None:
    checkpoint = _checkpoint()
    keys = list(checkpoint)

    DirectoryCheckpointIO().save_checkpoint(checkpoint, tmp_path / "one")

    assert list(checkpoint) == keys


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"callbacks": {"Mine": {"best": torch.ones(2)}}}, r"callbacks\.Mine\.best.*tensor of shape \(2,\)"),
        ({"callbacks": {"Mine": [1, {"path": Path("x")}]}}, r"callbacks\.Mine\[1\]\.path.*Path"),
        ({"callbacks": {3: "three"}}, r"callbacks: expected a string as a key, got 3"),
    ],
)
def test_what_is_not_plain_is_refused_by_its_path(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        check_plain(value, "checkpoint")


def test_a_value_that_cannot_be_saved_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\.extra"):
        DirectoryCheckpointIO().save_checkpoint(
            _checkpoint() | {"state": {"extra": object()}}, tmp_path / "one"
        )

    assert not list(tmp_path.iterdir())
