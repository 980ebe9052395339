"""The benchmarks of a GPU: their sums and words anywhere, their runs where one is."""

import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

from addertrain.bench import cuda_ops, cuda_step, ops, proof, roofline, step
from addertrain.bench.gpu import Gpu
from addertrain.bench.layers import NETWORKS
from addertrain.errors import RunError
from tests.source_tree import ROOT

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")


def test_the_ceiling_is_two_instructions_an_element() -> None:
    assert Gpu("H200", 132, 128).ceiling(1.98) == pytest.approx(16.7e3, rel=1e-2)  # 1e9 elements/s


def _row(count: int, elements: float, seconds: float, ceiling: float) -> cuda_ops.Row:
    return cuda_ops.Row("", count, 8, elements, 1.5, ceiling, seconds, 2 * seconds, 3 * seconds, seconds)


def test_a_network_is_its_layers_as_often_as_it_has_them() -> None:
    total = cuda_ops.in_sum([_row(1, 10.0, 1.0, 20.0), _row(3, 4.0, 0.5, 8.0)])

    assert total.elements == 22.0
    assert (total.forward, total.grad_input, total.grad_weight) == (2.5, 5.0, 7.5)
    assert total.elements / total.ceiling == pytest.approx(10 / 20 + 3 * 4 / 8)  # seconds at the ceiling


@pytest.mark.parametrize(
    ("kernel", "part"),
    [
        ("void addertrain::adder_contract_kernel<...>", "adder"),
        ("void at::native::batch_norm_backward_reduce", "norm"),
        ("sm90_xmma_wgrad_implicit_gemm_f32", "convolution"),
        ("void at::native::vectorized_elementwise_kernel", "other"),
    ],
)
def test_kernels_are_told_apart_by_name(kernel: str, part: str) -> None:
    assert cuda_step.part_of(kernel) == part


@no_gpu
@pytest.mark.parametrize("benchmark", [ops, step, proof], ids=["ops", "step", "proof"])
def test_without_a_gpu_one_line_says_so(benchmark: ModuleType) -> None:
    with pytest.raises(RunError, match="expected a GPU for --device cuda, got none"):
        benchmark.main(["lenet5bn", "--device", "cuda"])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", cuda_ops.DTYPES)
def test_ops_on_a_gpu(dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.json"
    words = ["resnet20", "--device", "cuda", "--batch", "8", "--seconds", "0", "--dtype", dtype]

    assert ops.main([*words, "--json", str(path)]) == 0

    assert "in sum" in capsys.readouterr().out
    rows = json.loads(path.read_text())["rows"]["resnet20"]
    assert all(row["forward"] > 0 and row["clock_ghz"] > 0 for row in rows)


@pytest.mark.gpu
def test_step_on_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert step.main(["resnet20", "--device", "cuda", "--batch", "16", "--seconds", "0"]) == 0

    assert "images/s" in capsys.readouterr().out


def test_the_page_shows_what_the_roofline_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert roofline.main(["resnet18", "resnet50", "resnet20"]) == 0

    page = (ROOT / "docs" / "performance-gpu.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() in page


def test_the_roofline_of_no_network_is_that_of_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert roofline.main(["resnet18", "resnet50"]) == 0
    named = capsys.readouterr().out
    assert roofline.main([]) == 0

    assert capsys.readouterr().out == named


def test_the_summary_repeats_the_prediction() -> None:
    page = (ROOT / "docs" / "performance-gpu.md").read_text(encoding="utf-8")
    summary = re.findall(r"^\| ResNet-\d+, batch \d+ \| (.*) \|$", page, re.MULTILINE)
    totals = re.findall(r"^\| \*\*all\*\* \| (.*) \|$", page, re.MULTILINE)

    assert summary == [total.replace("**", "") for total in totals]


def test_no_prediction_passes_its_own_pipes() -> None:
    """Issue slots alone allow 128 / slots elements a clock."""
    for (dtype, pass_), tiles in roofline.TILES.items():
        most = max(roofline.LANES / tile.slots for tile in tiles) / (roofline.LANES / 2)
        shares = [roofline.predict(layer, 128, dtype, pass_).share for layer in NETWORKS["resnet50"].layers]
        assert min(shares) > 0.2
        assert max(shares) < most
