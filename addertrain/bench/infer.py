"""`addertrain bench infer`: the time of a whole network's evaluation in 8 bits, against convolutions.

Weights are random. The adder network runs in bytes (`models.in_bytes`) and in float32; its convolutional
baseline runs in float32 through torch, with its norms in its weights, and in 8 bits through onnxruntime.
"""

import functools
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from addertrain.bench.onnx_baseline import int8_session
from addertrain.bench.timing import Timing, interleaved
from addertrain.command_parser import CommandParser, number, one_of, whole_number
from addertrain.models import build_model
from addertrain.models.in_bytes import ByteResNet, with_norm
from addertrain.nn import BatchNorm2d, recalibrated

_IMAGES = {"resnet20": 32, "resnet18": 224, "resnet50": 224}
_OURS = "adder, int8"
_FLOAT = "convolutions, float32, torch"
_BYTES = "convolutions, int8, onnxruntime"

Run = Callable[[Tensor], object]


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark from command-line words; returns the exit code."""
    arguments = _parser().parse_args(argv)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    size = arguments.size or _IMAGES[arguments.network]
    images = torch.randn(4, 3, size, size)
    print(
        f"{arguments.network}, images of {size}x{size}, {arguments.threads} thread(s); medians, and the best "
        "of the repetitions in parentheses",
        flush=True,
    )
    networks, missing = _networks(arguments.network, images, arguments.threads)
    print(f"{'batch':>5}  {'network':32} {'ms a batch':>20}  {'images/s':>9}  {_OURS} takes")
    for batch in arguments.batch:
        x = torch.randn(batch, 3, size, size)
        last = x.to(memory_format=torch.channels_last)
        with torch.no_grad():
            # onnxruntime reads NCHW, torch and this package channels-last: each what it is fastest on.
            calls = {
                name: functools.partial(run, x if name == _BYTES else last) for name, run in networks.items()
            }
            times = interleaved(calls, seconds=arguments.seconds)
        for name, timing in times.items():
            print(_line(batch, name, timing, times[_OURS]))
    for line in missing:
        print(line)
    return 0


def _line(batch: int, name: str, timing: Timing, ours: Timing) -> str:
    ms = f"{1e3 * timing.median:.2f} ({1e3 * timing.best:.2f})"
    ratio = "" if name == _OURS else f"  {ours.median / timing.median:.2f} times as long"
    return f"{batch:5d}  {name:32} {ms:>20}  {batch / timing.median:9.1f}{ratio}"


def _networks(name: str, images: Tensor, threads: int) -> tuple[dict[str, Run], list[str]]:
    """What is timed, by name, and the lines that say what cannot be."""
    adder = build_model(name, kind="adder", num_classes=1000).to(memory_format=torch.channels_last).eval()
    conv = build_model(name, kind="conv", num_classes=1000).to(memory_format=torch.channels_last).eval()
    with recalibrated(adder, [images]):
        in_bytes = ByteResNet(adder, [images])
    plain = folded(conv)
    runs: dict[str, Run] = {_OURS: in_bytes, "adder, float32": adder, _FLOAT: plain}
    session = int8_session(plain, images, threads=threads)
    if isinstance(session, str):
        return runs, [f"{_BYTES}: {session}"]
    return {**runs, _BYTES: session}, []


class Activation(nn.Module):
    """What is left of a norm whose scale and shift are in the layer before it: a ReLU, or nothing."""

    def __init__(self, *, relu: bool) -> None:
        super().__init__()
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) if self.relu else x


def folded(model: nn.Module) -> nn.Module:
    """The network of convolutions with its norms in their weights, of torch's own layers."""
    for parent in list(model.modules()):
        children = dict(parent.named_children())
        for name, norm in children.items():
            before = _before(name, children)
            if isinstance(norm, BatchNorm2d) and before is not None:
                setattr(parent, before, with_norm(children[before], norm))
                setattr(parent, name, Activation(relu=norm.relu))
    return model


def _before(norm: str, children: dict[str, nn.Module]) -> str | None:
    """The name of the convolution before a norm: conv1 of bn1, the last layer of a ResNet's bn2, 0 of 1."""
    candidates = ("0",) if norm == "1" else (norm.replace("bn", "conv"), "fc")
    return next((one for one in candidates if isinstance(children.get(one), nn.Conv2d)), None)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="addertrain bench infer",
        description="Measures how long a whole network takes to evaluate a batch in 8 bits on this CPU, "
        "compared with its convolutional baseline in float32 through torch and in 8 bits through "
        "onnxruntime.",
        epilog="Measure on an idle machine. With one thread, times are processor time. Weights and images "
        "are random, which does not change the speed.",
    )
    parser.add_argument(
        "network", type=one_of(_IMAGES), metavar="NETWORK", help=f"the network: {', '.join(_IMAGES)}"
    )
    parser.add_argument(
        "--batch", type=whole_number(), nargs="+", default=[1, 16], help="the batch sizes (default: 1 16)"
    )
    parser.add_argument(
        "--threads", type=whole_number(), default=1, help="the number of processor cores to use (default: 1)"
    )
    parser.add_argument(
        "--seconds",
        type=number(can_be_0=True),
        default=15.0,
        help="how long each batch size is measured (default: 15)",
    )
    parser.add_argument(
        "--size", type=whole_number(), help="the height and width of images (default: those of the data set)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
