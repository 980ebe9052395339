"""`addertrain ckpt inspect | verify | diff | average` on checkpoints of a few tensors."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from addertrain.checkpoint.difference import differences
from addertrain.checkpoint.files import read_manifest, read_tensors, write_checkpoint
from addertrain.checkpoint.store import CheckpointStore
from addertrain.cli import main
from tests.commands import run_command

POSITION = {"epoch": 1, "batches": 2, "global_step": 12, "batches_per_epoch": 2, "is_evaluation_due": True}


def _write(run: Path, *, step: int = 12, momentum: bool = True, **model: Tensor) -> Path:
    store = CheckpointStore(run / "checkpoints")
    store.folder.mkdir(parents=True, exist_ok=True)
    path = store.path_for(epoch=1, global_step=step)
    tensors = {
        "model": {"conv.weight": torch.arange(6.0).view(2, 3), "norm.steps": torch.tensor(step), **model},
        "optimizer": {"conv.weight.momentum_buffer": torch.ones(2, 3)} if momentum else {},
        "rank_buffers": {},
    }
    state = {"clock": {"seconds": 3.0}}
    manifest: dict[str, Any] = {**POSITION, "global_step": step, "seed": 7, "world_size": 2, "state": state}
    versions = {"torch": "2.14.1", "python": "3.11"}
    write_checkpoint(
        path, tensors, {**manifest, "versions": versions, "optimizer": None, "recipe": {"name": "tiny"}}
    )
    return path


def test_inspect_says_what_is_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path / "run")

    assert main(["ckpt", "inspect", str(tmp_path / "run")]) == 0

    said = capsys.readouterr().out
    for part in (
        str(path), "tiny", "1 epochs and 2 batches, 12 steps, evaluation still to be made",
        "torch 2.14.1, python 3.11", "manifest.json",
        "model            2 tensors, 7 elements", "conv.weight", "F32   2x3", "I64   number",
    ):  # fmt: skip
        assert part in said or part == "manifest.json"


def test_inspect_and_verify_do_not_wait_for_torch(tmp_path: Path) -> None:
    path = _write(tmp_path / "run", half=torch.ones(3, dtype=torch.bfloat16))
    code = f"""
import sys
from addertrain.cli import main
assert main(["ckpt", "inspect", {str(path)!r}]) == main(["ckpt", "verify", {str(path)!r}]) == 0
assert "torch" not in sys.modules
"""

    result = run_command(sys.executable, "-c", code)

    assert result.returncode == 0, result.stderr
    assert "BF16  3" in result.stdout
    assert "intact   " in result.stdout


def test_inspect_as_json_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path / "run")

    assert main(["ckpt", "inspect", str(path), "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert {key: found[key] for key in POSITION} == POSITION
    assert found["files"] == read_manifest(path)["files"]
    assert found["tensors"]["model"]["conv.weight"] == {"dtype": "F32", "shape": [2, 3]}
    assert found["recipe"] == {"name": "tiny"}


def test_verify_names_every_damaged_file_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    whole, damaged = _write(run, step=10), _write(run, step=20)
    assert main(["ckpt", "verify", str(run)]) == 0
    (damaged / "optimizer.safetensors").unlink()
    contents = bytearray((damaged / "model.safetensors").read_bytes())
    contents[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(contents)
    capsys.readouterr()

    assert main(["ckpt", "verify", str(run)]) == 1

    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        f"damaged  {damaged}: model.safetensors does not match its checksum; optimizer.safetensors is missing"
    )
    assert second.startswith(f"intact   {whole}: 3 files, ")
    assert main(["ckpt", "verify", str(whole)]) == 0
    assert main(["ckpt", "verify", str(damaged)]) == 1


def test_diff_of_equal_ones_is_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = torch.tensor([torch.nan, torch.inf, 0.0])
    left, right = _write(tmp_path / "left", odd=odd), _write(tmp_path / "right", odd=odd)

    assert main(["ckpt", "diff", str(left), str(right)]) == 0
    assert capsys.readouterr().out == "4 tensors equal, 0 different\n"


def test_diff_names_what_differs_and_by_how_much(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = _write(tmp_path / "left", bias=torch.tensor([1.0, 4.0]), only=torch.ones(2), cut=torch.ones(3))
    right = _write(tmp_path / "right", bias=torch.tensor([1.5, 4.0]), cut=torch.ones(2), momentum=False)

    assert main(["ckpt", "diff", str(left), str(right)]) == 1

    said = capsys.readouterr().out
    assert "conv.weight.momentum_buffer                  only in the first" in said
    assert "cut                                          shapes (3,) and (2,)" in said
    assert "bias                                          5.000e-01  3.333e-01" in said
    assert said.endswith("2 tensors equal, 4 different\n")


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([1.0, -2.0], [1.0, -2.5], (0.5, 0.2)),
        ([0.0, 0.0], [0.0, 1e-30], (1e-30, 1.0)),
        ([0.0], [-0.0], (0.0, 0.0)),
        ([torch.nan], [1.0], (torch.inf, 1.0)),
        ([torch.inf], [-torch.inf], (torch.inf, 1.0)),
    ],
)
def test_differences_are_absolute_and_relative(
    tmp_path: Path, ours: list[float], theirs: list[float], expected: tuple[float, float]
) -> None:
    left = _write(tmp_path / "left", x=torch.tensor(ours).double())
    right = _write(tmp_path / "right", x=torch.tensor(theirs).double())

    (found,) = [each for each in differences(left, right) if each.name == "x"]

    assert (found.absolute, found.relative) == pytest.approx(expected)


def test_the_average_is_the_mean_of_the_weights(tmp_path: Path) -> None:
    values = [torch.randn(3, 4) for _ in range(3)]
    runs = [_write(tmp_path / f"{i}", step=10 + i, x=value) for i, value in enumerate(values)]
    out = tmp_path / "mean"

    assert main(["ckpt", "average", *map(str, runs), "--out", str(out)]) == 0

    model, manifest = read_tensors(out, "model"), read_manifest(out)
    assert torch.equal(model["x"], torch.stack(values).double().mean(0).float())
    assert model["norm.steps"].item() == 12
    assert read_tensors(out, "optimizer") == {}
    assert (manifest["global_step"], manifest["recipe"]) == (12, {"name": "tiny"})
    assert [source["global_step"] for source in manifest["averaged"]] == [10, 11, 12]
    assert (manifest["state"], manifest["optimizer"]) == ({}, None)


def test_what_cannot_be_averaged_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = str(_write(tmp_path / "one"))
    other = str(_write(tmp_path / "other", more=torch.ones(2)))
    out = str(tmp_path / "mean")

    for words, message in (
        ([one, other, "--out", out], "expected the network of"),
        ([one, f"{one}/.", "--out", out], "got the same one twice"),
        ([one, "--out", str(tmp_path)], "expected a new folder to write to"),
        ([one, "--out", str(tmp_path / "no" / "folder")], "No such file or directory"),
        ([str(tmp_path / "nothing"), "--out", out], "got nothing there"),
    ):
        assert main(["ckpt", "average", *words]) == 1
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    assert not Path(out).exists()


@pytest.mark.parametrize("action", ["inspect", "verify", "diff"])
def test_a_path_that_is_no_checkpoint_is_one_line(
    action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(tmp_path / "nothing")] * (2 if action == "diff" else 1)

    assert main(["ckpt", action, *words]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["ckpt", action, *[str(tmp_path) for _ in words]]) == 1
    assert "found no checkpoints in it" in capsys.readouterr().err
    assert main(["ckpt", "nonsense"]) == 2
