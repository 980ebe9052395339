"""`addertrain bench ops --device cuda`: the operators on a GPU, per layer and summed over a network.

Each pass as 1e9 elements/s and as a share of the float32 ceiling (two instructions an element) at the clock
that was sampled while the layer ran; 16 bits may pass 100 %. For comparison it also times cuBLAS on a matrix
product of the same sizes, `torch.cdist(p=1)` and the paper's formulas by broadcasting.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from addertrain.bench.broadcast import broadcast_training, cdist_forward, images_that_fit
from addertrain.bench.gpu import Gpu, clock_under, interleaved_on_gpu, require_gpu
from addertrain.bench.layers import NETWORKS, LayerShape
from addertrain.bench.operands import operands
from addertrain.errors import UsageError
from addertrain.ops import schemas

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_BATCH = 128
_PASSES = ("forward", "grad_input", "grad_weight")
_HEAD = (
    "layer                    images    GHz |   forward (ceiling) | grad input (ceiling) | grad weight"
    " | matmul |  cdist | formulas, training"
)


def check_dtype(benchmark: str, dtype: str, device: str) -> None:
    """Refuses a --dtype that a CPU, which is measured in float32, would ignore.

    Raises:
        UsageError: another type than float32 for a CPU.
    """
    if device == "cpu" and dtype != "float32":
        raise UsageError(
            f"{benchmark}: expected --dtype {dtype} with --device cuda, got it for a CPU, which is measured "
            "in float32; leave it out"
        )


@dataclass(frozen=True)
class Row:
    """One layer. Seconds of each pass; `ceiling` in 1e9 elements/s at `clock_ghz`; None: not measured."""

    layer: str
    count: int
    images: int
    elements: float
    clock_ghz: float
    ceiling: float
    forward: float
    grad_input: float
    grad_weight: float
    matmul: float
    cdist: float | None = None
    formula: float | None = None


def run(
    networks: Sequence[str],
    *,
    batch: int | None,
    layout: str,
    dtype: str,
    seconds: float,
    with_formulas: bool,
    json_path: Path | None,
) -> int:
    """Prints the tables, writes them to `json_path` too; returns the exit code."""
    gpu = require_gpu()
    torch.backends.cuda.matmul.allow_tf32 = False  # a float32 product is what float32 sums compare with
    print(f"{gpu.name}, {gpu.multiprocessors} multiprocessors, {dtype}, {layout}, torch {torch.__version__}")
    report: dict[str, list[dict[str, object]]] = {}
    for network in networks:
        print(f"\n{network}\n{_HEAD}")
        rows = []
        for layer in NETWORKS[network].layers:
            tensors = operands(layer, batch or _BATCH, layout, device="cuda", dtype=DTYPES[dtype])
            rows.append(measure_layer(gpu, layer, *tensors, seconds=seconds, with_formulas=with_formulas))
            print(_line(rows[-1]), flush=True)
        print(_line(in_sum(rows)))
        report[network] = [asdict(row) for row in rows]
    if json_path:
        json_path.write_text(
            json.dumps({"gpu": asdict(gpu), "dtype": dtype, "rows": report}, indent=2) + "\n"
        )
    return 0


def measure_layer(
    gpu: Gpu,
    layer: LayerShape,
    x: Tensor,
    weight: Tensor,
    dy: Tensor,
    *,
    seconds: float,
    with_formulas: bool,
) -> Row:
    """Times one layer. cuBLAS multiplies matrices of the contraction's sizes: N*P*Q by K by O."""
    sizes = ([layer.stride] * 2, [layer.padding] * 2, [1, 1])
    left = torch.randn(dy.numel() // layer.O, weight[0].numel(), device="cuda", dtype=x.dtype)
    right = weight.flatten(1).t()
    calls = {
        "forward": lambda: schemas.ADDER2D(x, weight, *sizes, True),
        "grad_input": lambda: schemas.GRAD_INPUT(dy, x, weight, *sizes),
        "grad_weight": lambda: schemas.GRAD_WEIGHT(dy, x, weight, *sizes),
        "matmul": lambda: left @ right,
    }
    clock_ghz = clock_under(calls["forward"])
    times = {name: timing.median for name, timing in interleaved_on_gpu(calls, seconds=seconds).items()}
    slow = _formulas(layer, x, weight, dy) if with_formulas else {}
    elements = len(x) * layer.elements_per_image / 1e9
    ceiling = gpu.ceiling(clock_ghz)
    return Row(layer.name, layer.count, len(x), elements, clock_ghz, ceiling, **times, **slow)


def _formulas(layer: LayerShape, x: Tensor, weight: Tensor, dy: Tensor) -> dict[str, float]:
    """Seconds of cdist's forward and of the broadcast formulas' three passes, scaled to all images."""
    few = images_that_fit(layer, len(x))
    small = x[:few].float(), weight.float(), dy[:few].float()
    calls = {
        "cdist": lambda: cdist_forward(small[0], small[1], layer),
        "formula": lambda: broadcast_training(*small, layer),
    }
    times = interleaved_on_gpu(calls, seconds=0.0, rounds=1)
    return {name: timing.median * len(x) / few for name, timing in times.items()}


def in_sum(rows: Sequence[Row]) -> Row:
    """A network's row: every layer as often as the network has it; the ceiling weighted by elements."""
    elements = sum(row.count * row.elements for row in rows)
    at_ceiling_s = sum(row.count * row.elements / row.ceiling for row in rows)
    clock_ghz = sum(row.count * row.elements * row.clock_ghz for row in rows) / elements
    times = {name: sum(row.count * getattr(row, name) for row in rows) for name in (*_PASSES, "matmul")}
    images = rows[0].images
    return Row("in sum", 1, images, elements, clock_ghz, elements / at_ceiling_s, **times)


def _line(row: Row) -> str:
    forward, grad_input, grad_weight, matmul = (
        row.elements / getattr(row, name) for name in (*_PASSES, "matmul")
    )
    line = (
        f"{row.layer:24s} {row.images:6d} {row.clock_ghz:6.3f} "
        f"| {forward:9.0f} ({100 * forward / row.ceiling:5.1f} %) "
        f"| {grad_input:9.0f} ({100 * grad_input / row.ceiling:5.1f} %)  "
        f"| {grad_weight:11.0f} | {matmul:6.0f} |"
    )
    if row.cdist is None or row.formula is None:
        return line
    training = row.forward + row.grad_input + row.grad_weight
    return f"{line} {row.elements / row.cdist:6.1f} | {row.formula / training:.0f} times slower"
