"""`addertrain bench ops`: elements/s of forward, input gradient and weight gradient, layer by layer.

For comparison it also measures the upper limit of this processor (loops that only use registers), torch's
convolution of the same shape, the paper's formulas by broadcasting, and `torch.cdist(p=1)`. An element is one
|x - w|, or one product in the weight gradient.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from addertrain import libraries
from addertrain.bench import cuda_ops
from addertrain.bench.broadcast import broadcast_training, cdist_forward, images_that_fit
from addertrain.bench.ceilings import Ceilings, measure
from addertrain.bench.layers import NETWORKS, LayerShape
from addertrain.bench.operands import operands
from addertrain.bench.timing import interleaved
from addertrain.command_parser import CommandParser, new_file, number, one_of, whole_number
from addertrain.ops import schemas

_HEAD = (
    "layer                    images |  forward   (ceiling)   half zeros | grad input (ceiling) half zeros |"
    " grad weight | both, half zeros |   conv |  cdist | formulas, training"
)


@dataclass(frozen=True)
class Row:
    """1e9 elements/s of one layer; `training` counts its three passes, `formula` the same by broadcasting.

    `forward` is on positive inputs, all others on a ReLU's output, of which half is 0; `grad_input_relu`
    leaves out what the ReLU drops, and `gradients_relu` is both gradients in the call that training makes.
    None: not measured.
    """

    layer: str
    images: int
    forward: float
    forward_relu: float
    grad_input: float
    grad_input_relu: float
    grad_weight: float
    gradients_relu: float
    conv: float
    training: float
    cdist: float | None = None
    formula: float | None = None


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark from command-line words; returns the exit code."""
    arguments = _parser().parse_args(argv)
    cuda_ops.check_dtype("bench ops", arguments.dtype, arguments.device)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.device == "cuda":
        return cuda_ops.run(
            arguments.networks or list(NETWORKS),
            batch=arguments.batch,
            layout=arguments.layout,
            dtype=arguments.dtype,
            seconds=arguments.seconds,
            with_formulas=not arguments.kernels_only,
            json_path=arguments.json,
        )
    ceilings = measure()
    print(
        f"{arguments.threads} thread(s), float32, {arguments.layout}; {libraries.status()}\n"
        f"ceiling of one core, register-only: forward {ceilings.forward:.1f}, input gradient "
        f"{ceilings.grad_input:.1f} (1e9 elements/s)"
    )
    rows: list[tuple[str, Row]] = []
    for network in arguments.networks or NETWORKS:
        print(f"\n{network}\n{_HEAD}")
        for layer in NETWORKS[network].layers:
            batch = arguments.batch or NETWORKS[network].batch
            row = measure_layer(
                layer,
                batch,
                layout=arguments.layout,
                seconds=arguments.seconds,
                with_formulas=not arguments.kernels_only,
            )
            rows.append((network, row))
            print(_line(row, ceilings, arguments.threads), flush=True)
    if arguments.json:
        report = {
            "ceilings": asdict(ceilings),
            "threads": arguments.threads,
            "rows": [{"network": network, **asdict(row)} for network, row in rows],
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def measure_layer(
    layer: LayerShape, batch: int, *, layout: str, seconds: float, with_formulas: bool = True
) -> Row:
    """Times one layer; the formulas and cdist once, on as many images as they can take."""
    x, weight, dy = operands(layer, batch, layout)
    positive = x.abs() + torch.rand_like(x)
    sizes = ([layer.stride] * 2, [layer.padding] * 2, [1, 1])
    conv = torch.nn.functional.conv2d
    times = interleaved(
        {
            "forward": lambda: schemas.ADDER2D(positive, weight, *sizes, True),
            "forward_relu": lambda: schemas.ADDER2D(x, weight, *sizes, True),
            "grad_input": lambda: schemas.GRAD_INPUT(dy, x, weight, *sizes),
            "grad_input_relu": lambda: schemas.RECTIFIED_GRAD_INPUT(dy, x, weight, *sizes),
            "grad_weight": lambda: schemas.GRAD_WEIGHT(dy, x, weight, *sizes),
            "gradients_relu": lambda: schemas.RECTIFIED_GRADIENTS(dy, x, weight, *sizes, True),
            "conv": lambda: conv(x, weight, None, layer.stride, layer.padding),
        },
        seconds=seconds,
    )
    elements = batch * layer.elements_per_image / 1e9
    passes = {name: elements / timing.median for name, timing in times.items()}
    passes["gradients_relu"] *= 2
    training = 3 * elements / (times["forward_relu"].median + times["gradients_relu"].median)
    slow = _formulas(x, weight, dy, layer) if with_formulas else {}
    return Row(layer.name, batch, **passes, training=training, **slow)


def _formulas(x: Tensor, weight: Tensor, dy: Tensor, layer: LayerShape) -> dict[str, float]:
    """1e9 elements/s of cdist's forward, and of the broadcast formulas' three passes."""
    few = images_that_fit(layer, len(x))
    times = interleaved(
        {
            "cdist": lambda: cdist_forward(x[:few], weight, layer),
            "formula": lambda: broadcast_training(x[:few], weight, dy[:few], layer),
        },
        seconds=0.0,
        rounds=1,
        warm_up=False,
    )
    elements = few * layer.elements_per_image / 1e9
    return {"cdist": elements / times["cdist"].median, "formula": 3 * elements / times["formula"].median}


def _line(row: Row, ceilings: Ceilings, threads: int) -> str:
    forward_share = 100 * row.forward / (ceilings.forward * threads)
    grad_share = 100 * row.grad_input / (ceilings.grad_input * threads)
    line = (
        f"{row.layer:24s} {row.images:6d} | {row.forward:8.1f}   ({forward_share:4.0f} %)    "
        f"{row.forward_relu:10.1f} | {row.grad_input:10.1f} ({grad_share:4.0f} %)  "
        f"{row.grad_input_relu:10.1f} | "
        f"{row.grad_weight:11.1f} | {row.gradients_relu:16.1f} | {row.conv:6.1f} |"
    )
    if row.cdist is None or row.formula is None:
        return line
    return f"{line} {row.cdist:6.2f} | {row.formula:.3f}, {row.training / row.formula:.0f} times slower"


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="addertrain bench ops",
        description="Measures the speed of the adder operators on this CPU or a GPU, in 1e9 elements/s, "
        "for each layer of the networks.",
        epilog="Measure on an idle machine, because other work on it can halve every figure.",
    )
    parser.add_argument(
        "networks",
        nargs="*",
        type=one_of(NETWORKS),
        metavar="NETWORK",
        help=f"the networks whose layers are measured: {', '.join(NETWORKS)} (default: all)",
    )
    parser.add_argument(
        "--threads", type=whole_number(), default=1, help="the number of processor cores to use (default: 1)"
    )
    parser.add_argument(
        "--batch",
        type=whole_number(),
        help="the batch size (default: 256, 128 or 16, depending on the network)",
    )
    parser.add_argument(
        "--layout", choices=["channels-last", "nchw"], default="channels-last",
        help="the memory format of images (default: channels-last)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds",
        type=number(can_be_0=True),
        default=0.5,
        help="how long each layer is measured (default: 0.5)",
    )
    parser.add_argument(
        "--kernels-only",
        action="store_true",
        help="do not measure torch.cdist and the slow formulas in PyTorch",
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="the device to measure (default: cpu)"
    )
    parser.add_argument(
        "--dtype",
        choices=cuda_ops.DTYPES,
        default="float32",
        help="the data type on a GPU (default: float32)",
    )
    parser.add_argument("--json", type=new_file, metavar="FILE", help="also write the figures to FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
