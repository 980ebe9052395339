"""A run proves its kernels before it trusts them: a wrong one ends it on all ranks, with one line."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from addertrain import compiled, libraries
from addertrain.cli import main
from addertrain.errors import RunError
from addertrain.ops import reference, schemas
from addertrain.proof import CompiledOperators, ProvenLayer
from addertrain.train import kernels
from addertrain.train.recipe_record import recipe_from_record, recipe_to_record
from addertrain.train.run import evaluate, fit
from tests.ranks import on_ranks
from tests.train.small_runs import DIGITS, SHORT, launched, short_recipe

ONE_EPOCH = "--schedule.epochs=1"


class _Wrong(CompiledOperators):
    """An input gradient that is half of what it should be, at the layer of 16 filters."""

    def grad_input(self, layer: ProvenLayer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        dx = super().grad_input(layer, dy, x, w)
        return dx / 2 if layer.O == 16 else dx


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_wrong_kernel_ends_a_run_with_a_line_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "CompiledOperators", _Wrong)
    out = tmp_path / "run"

    assert main(["fit", str(DIGITS), *SHORT, ONE_EPOCH, "--out", str(out)]) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert "adder2d_grad_input at layer " in line
    assert "5x5 6->16" in line
    assert "set train.kernels: reference" in line
    assert str(out / kernels.REPORT) in line
    assert [path.name for path in out.iterdir()] == [kernels.REPORT], "nothing was trained"
    (rank,) = json.loads((out / kernels.REPORT).read_text())["ranks"]
    assert rank["environment"]["library"]
    kinds = {"adder2d_grad_input", "adder2d_grad_input, few zeros"}
    assert {one["kernel"] for one in rank["outcome"]["failures"]} == kinds


def test_the_second_start_tries_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = short_recipe(ONE_EPOCH)
    fit(recipe, tmp_path / "first")
    assert "kernels      5 of 5 different adder layers" in capsys.readouterr().out

    monkeypatch.setattr(kernels, "CompiledOperators", _Wrong)  # would be noticed
    evaluate(tmp_path / "first")
    assert "kernels " not in capsys.readouterr().out


def test_a_run_by_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "CompiledOperators", _Wrong)
    recipe = short_recipe("--train.kernels=reference", ONE_EPOCH)
    x, w = torch.randn(2, 3, 8, 8), torch.randn(5, 3, 3, 3)
    sizes = ([1, 1], [0, 0], [1, 1])

    with kernels.trusted_kernels(recipe, None, None, tmp_path):  # asks nobody
        y = schemas.ADDER2D(x, w, *sizes, True)

    assert torch.equal(y, reference.adder2d(x, w, *sizes, True))


def test_a_run_without_the_key_is_one_of_compiled_kernels() -> None:
    record = recipe_to_record(short_recipe())
    del record["train"]["kernels"]

    assert recipe_from_record(record, source="a checkpoint") == short_recipe()


def test_a_damaged_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_C.so").write_bytes(b"not a library")
    monkeypatch.setattr(compiled, "_FOLDERS", (tmp_path,))
    monkeypatch.setattr(libraries, "_status", dict(libraries._status))
    libraries.load()

    with pytest.raises(RunError, match=r"_C\.so is there and does not load") as raised:
        fit(short_recipe(ONE_EPOCH), tmp_path / "run")

    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_no_library_leaves_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_FOLDERS", (tmp_path,))
    monkeypatch.setattr(libraries, "_status", dict.fromkeys(libraries._status, "not built"))

    assert kernels._library_trouble("cuda") == kernels._library_trouble("cpu") == ""


def _two_ranks(out: Path, cache: Path) -> str:
    launched()
    os.environ["XDG_CACHE_HOME"] = str(cache)
    kernels.CompiledOperators = _Wrong
    with pytest.raises(RunError) as raised:
        fit(short_recipe(ONE_EPOCH), out)
    return str(raised.value)


def test_all_ranks_stop_together(tmp_path: Path) -> None:
    first, second = on_ranks(2, _two_ranks, tmp_path / "run", tmp_path / "cache")

    assert "rank 0" in first
    assert "rank 0" in second, "on a CPU the first rank of a machine tries the kernels"
    assert (tmp_path / "run" / kernels.REPORT).exists()
