"""The benchmarks run and count right; nothing here judges a speed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from addertrain import libraries
from addertrain.bench import checkpoint, ops, step
from addertrain.bench.broadcast import broadcast_training, cdist_forward
from addertrain.bench.layers import NETWORKS, LayerShape
from addertrain.bench.timing import interleaved
from addertrain.checkpoint.files import read_tensors
from addertrain.data import ImageData
from addertrain.data.sets import digits
from addertrain.data.sets.digits import load_digits_data
from addertrain.errors import UsageError
from addertrain.ops import reference
from addertrain.ops.functional import adder2d
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory
from tests.train.small_runs import short_recipe

needs_library = pytest.mark.skipif(
    "_C loaded" not in libraries.status(), reason="the CPU library is not built"
)


@pytest.mark.parametrize(
    ("network", "layers", "elements"),
    [
        ("lenet5bn", 5, 416_520),
        ("resnet20", 20, 40.37e6),
        ("resnet18", 19, 1.696e9),
        ("resnet50", 52, 3.969e9),
    ],
)
def test_layers_add_up_to_the_papers_networks(network: str, layers: int, elements: float) -> None:
    shapes = NETWORKS[network].layers
    assert sum(shape.count for shape in shapes) == layers
    total = sum(shape.count * shape.elements_per_image for shape in shapes)
    assert total == pytest.approx(elements, rel=1e-3)


def test_broadcast_formulas_are_the_reference() -> None:
    torch.manual_seed(0)
    layer = LayerShape("3x3", 3, 4, 6, 3, 1, 1)
    x, weight = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3)
    dy = torch.randn(2, 4, 6, 6)
    sizes = ([1, 1], [1, 1], [1, 1])
    y_om, dw_ok, _ = broadcast_training(x, weight, dy, layer)
    y = adder2d(x, weight, padding=1)
    assert torch.allclose(y_om, y.transpose(0, 1).flatten(1), atol=1e-4)
    assert torch.allclose(
        dw_ok.view_as(weight), reference.adder2d_grad_weight(dy, x, weight, *sizes), atol=1e-3
    )
    assert torch.allclose(cdist_forward(x, weight, layer)[0].t(), y_om, atol=1e-4)


def test_every_call_gets_its_rounds() -> None:
    calls = {"a": 0, "b": 0}

    def count(name: str) -> None:
        calls[name] += 1

    timings = interleaved({"a": lambda: count("a"), "b": lambda: count("b")}, seconds=0.0)
    assert calls == {"a": 4, "b": 4}  # one to warm up, three rounds
    assert set(timings) == {"a", "b"}


@needs_library
def test_ops_writes_a_row_for_every_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert (
            ops.main(["lenet5bn", "--batch", "2", "--seconds", "0", "--json", str(tmp_path / "ops.json")])
            == 0
        )
    finally:
        torch.set_num_threads(threads)
    report = json.loads((tmp_path / "ops.json").read_text())
    assert [row["layer"] for row in report["rows"]] == [layer.name for layer in NETWORKS["lenet5bn"].layers]
    assert all(row[name] > 0 for row in report["rows"] for name in ("forward", "grad_input", "formula"))
    assert report["ceilings"]["forward"] > 0
    assert "register-only" in capsys.readouterr().out


def test_step_times_both_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert step.main(["lenet5bn", "--batch", "4", "--seconds", "0"]) == 0
    finally:
        torch.set_num_threads(threads)
    assert "adder / conv" in capsys.readouterr().out


def test_step_times_a_converted_network(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    words = ["resnet18", "--converted", "--batch", "2", "--size", "32", "--seconds", "0"]
    try:
        assert step.main(words) == 0
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    assert "19 of 19 adder layers read a ReLU" in said
    assert "fused / adder" in said


def test_a_run_is_timed_on_its_images_and_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, opened = tmp_path / "run", []
    fit(short_recipe("--schedule.epochs=1"), run)
    learned = read_tensors(RunDirectory(run).store.newest_first()[0], "model")

    def load_and_count(*given: Any) -> ImageData:
        opened.append(given)
        return load_digits_data(*given)

    monkeypatch.setattr(digits, "load_digits_data", load_and_count)
    case = step._chosen(str(run), (3, 224, 224), 1000, 16)
    assert len(opened) == 1
    for each in step._steps(case, 16).values():
        each()

    assert case.batch is not None
    images, labels = case.batch
    assert (images.shape, images.dtype, labels.shape) == ((16, 1, 32, 32), torch.float32, (16,))
    kept = {name: each for name, each in case.adder.state_dict().items() if "running" not in name}
    assert all(torch.equal(each, learned[name]) for name, each in kept.items() if "num_batches" not in name)
    threads = torch.get_num_threads()
    try:
        assert step.main([str(run), "--batch", "16", "--seconds", "0"]) == 0
    finally:
        torch.set_num_threads(threads)
    assert "adder / conv" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"package\.module:function or a run directory, got 'resnet02'"):
        step.main(["resnet02"])
    with pytest.raises(UsageError, match=r"expected no --size with a run, .* got 64"):
        step.main([str(run), "--size", "64"])


def test_checkpoint_tells_the_copy_from_the_writing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    try:
        assert checkpoint.main(["lenet5bn", "--folder", str(tmp_path), "--saves", "2"]) == 0
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    assert "copy, on the training thread" in said
    assert "% of the training thread's time" in said
    assert not list(tmp_path.iterdir())


def test_unknown_network_is_refused() -> None:
    with pytest.raises(UsageError, match=r"expected one of lenet5bn, .*, got 'resnet19'"):
        ops.main(["resnet19"])
