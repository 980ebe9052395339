from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from addertrain.checkpoint import files
from addertrain.checkpoint.files import read_manifest, read_tensors, verify_checkpoint, write_checkpoint
from addertrain.errors import CheckpointError

FILES = ("model.safetensors", "optimizer.safetensors", "rank_buffers.safetensors", "manifest.json")


def _tensors() -> dict[str, dict[str, Tensor]]:
    return {
        "model": {
            "conv.weight": torch.randn(4, 3, 5, 5),
            "count": torch.tensor(7),
            "half": torch.randn(3).half(),
        },
        "optimizer": {"conv.weight.momentum_buffer": torch.randn(4, 3, 5, 5)},
        "rank_buffers": {"0/norm.running_mean": torch.randn(4)},
    }


def _written(folder: Path) -> Path:
    path = folder / "epoch_0001_step_000010"
    write_checkpoint(path, _tensors(), {"epoch": 1, "lr": 0.1, "text": "γ"})
    return path


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    path, tensors = tmp_path / "one", _tensors()
    write_checkpoint(path, tensors, {"lr": 0.1 + 0.2, "nested": {"flags": [True, None]}})

    manifest = verify_checkpoint(path)

    assert manifest["lr"] == 0.1 + 0.2
    assert manifest["nested"] == {"flags": [True, None]}
    for name, expected in tensors.items():
        read = read_tensors(path, name)
        assert read.keys() == expected.keys()
        assert all(torch.equal(read[key], expected[key]) for key in expected)
        assert all(read[key].dtype == expected[key].dtype for key in expected)


def test_plain_safetensors_readers_understand_it(tmp_path: Path) -> None:
    path = _written(tmp_path)

    assert set(load_file(path / "model.safetensors")) == {"conv.weight", "count", "half"}
    assert {file.name for file in path.iterdir()} == set(FILES)


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool],
    ids=str,
)
def test_every_type_and_shape_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    model = {
        name: (100 * torch.randn(shape)).to(dtype)
        for name, shape in {"γ.weight": (3, 5, 7), "none": (0, 4), "one": (), "odd": (1,)}.items()
    }

    write_checkpoint(tmp_path / "one", _tensors() | {"model": {**model, "wide": torch.ones(3).double()}}, {})

    read = load_file(tmp_path / "one" / "model.safetensors")
    for name, expected in model.items():
        assert (read[name].dtype, read[name].shape) == (expected.dtype, expected.shape)
        assert torch.equal(read[name], expected)


def test_a_type_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=r"phase: expected a data type that safetensors supports, got torch.complex64"
    ):
        write_checkpoint(
            tmp_path / "one", _tensors() | {"model": {"phase": torch.ones(2, dtype=torch.complex64)}}, {}
        )
    assert not list(tmp_path.iterdir())


def test_tensors_that_share_memory_are_written(tmp_path: Path) -> None:
    weight = torch.randn(6)
    tensors = _tensors() | {"model": {"a": weight, "tied": weight, "view": weight[2:]}}

    write_checkpoint(tmp_path / "one", tensors, {})

    read = read_tensors(tmp_path / "one", "model")
    assert torch.equal(read["tied"], weight)
    assert torch.equal(read["view"], weight[2:])


def test_channels_last_tensors_keep_their_logical_order(tmp_path: Path) -> None:
    weight = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)

    write_checkpoint(tmp_path / "one", _tensors() | {"model": {"weight": weight}}, {})

    assert torch.equal(read_tensors(tmp_path / "one", "model")["weight"], weight)
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_one_flipped_bit_is_found(tmp_path: Path, name: str, position: float) -> None:
    path = _written(tmp_path)
    contents = bytearray((path / name).read_bytes())
    place = int(len(contents) * position)
    # JSON's white space means nothing; take the next byte that does.
    while chr(contents[place]).isspace():
        place += 1
    contents[place] ^= 1
    (path / name).write_bytes(contents)

    with pytest.raises(CheckpointError, match=f"{path.name}.*{name}"):
        verify_checkpoint(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_found(tmp_path: Path, name: str, share: float) -> None:
    path = _written(tmp_path)
    contents = (path / name).read_bytes()
    (path / name).write_bytes(contents[: int(len(contents) * share)])

    with pytest.raises(CheckpointError, match=f"{path.name}.*{name}"):
        verify_checkpoint(path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(tmp_path: Path, name: str) -> None:
    path = _written(tmp_path)
    (path / name).unlink()

    with pytest.raises(CheckpointError, match=f"{path.name}.*{name}"):
        verify_checkpoint(path)


def test_the_format_before_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FORMAT_VERSION", 1)
    path = _written(tmp_path)
    monkeypatch.undo()

    assert verify_checkpoint(path)["format_version"] == 1
    assert set(read_tensors(path, "optimizer")) == {"conv.weight.momentum_buffer"}


def test_a_later_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FORMAT_VERSION", 99)
    path = _written(tmp_path)
    monkeypatch.undo()

    with pytest.raises(CheckpointError, match=r"got 99; update addertrain"):
        read_manifest(path)


def test_a_failed_write_leaves_nothing_and_keeps_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _written(tmp_path)
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "flush_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(path, _tensors(), {})

    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_writing_again_replaces_a_damaged_one(tmp_path: Path) -> None:
    path = _written(tmp_path)
    (path / "model.safetensors").unlink()

    _written(tmp_path)

    verify_checkpoint(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_no_pickle_is_written(tmp_path: Path) -> None:
    for file in _written(tmp_path).iterdir():
        start = file.read_bytes()[:2]
        assert start not in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")
