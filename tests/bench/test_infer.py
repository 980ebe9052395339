"""`addertrain bench infer`: it prints its table; nothing here judges a speed."""

import sys

import pytest
import torch

from addertrain.bench import infer
from addertrain.models import build_model
from addertrain.nn import recalibrated


def _output(capsys: pytest.CaptureFixture[str]) -> str:
    threads = torch.get_num_threads()
    try:
        words = ["resnet20", "--batch", "1", "2", "--size", "8", "--seconds", "0"]
        assert infer.main(words) == 0
    finally:
        torch.set_num_threads(threads)
    return capsys.readouterr().out


def test_without_onnxruntime_the_rest_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    said = _output(capsys)

    assert said.count("adder, int8  ") == 2
    assert said.count("convolutions, float32, torch") == 2
    assert "convolutions, int8, onnxruntime: not measured: it needs onnx" in said


@pytest.mark.long
def test_onnxruntime_runs_the_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")

    said = _output(capsys)

    assert said.count("convolutions, int8, onnxruntime") == 2
    assert "not measured" not in said


def test_folded_norms_change_no_logit() -> None:
    torch.manual_seed(0)
    network = build_model("resnet20", kind="conv", num_classes=10).eval()
    images = torch.randn(4, 3, 16, 16)
    with recalibrated(network, [images]), torch.no_grad():
        expected = network(images)
        got = infer.folded(network)(images)

    assert torch.allclose(got, expected, atol=1e-3)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
