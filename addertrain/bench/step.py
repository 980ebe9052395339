"""`addertrain bench step`: compares a training step of an adder network with the convolutional baseline's.

The baseline has torch convolutions in place of adder layers, torch's batch norm and ReLU, and torch's SGD.
The networks have new weights and random images. For a run directory, the adder network has the run's weights
and both have its training images: how many activations are 0 decides how long some kernels take.
With `--converted` the comparison is with torchvision's network of that name, converted, both unchanged and
fused.
"""

import contextlib
import copy
import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addertrain.bench import cuda_step
from addertrain.bench.cuda_ops import DTYPES, check_dtype
from addertrain.bench.gpu import interleaved_on_gpu
from addertrain.bench.timing import interleaved
from addertrain.command_parser import CommandParser, number, whole_number
from addertrain.errors import UsageError, nearest
from addertrain.models import Kind, build_model
from addertrain.nn import BatchNorm2d, convert, fuse, param_groups
from addertrain.optim import AdderSGD
from addertrain.own_code import is_own


class TorchNorm(nn.BatchNorm2d):
    """torch's norm, followed by torch's ReLU where the network has one."""

    def __init__(self, num_features: int, *, relu: bool) -> None:
        super().__init__(num_features)
        self.relu = relu

    def forward(self, input: Tensor) -> Tensor:
        y = super().forward(input)
        return F.relu(y, inplace=True) if self.relu else y


def torch_norms(model: nn.Module) -> nn.Module:
    """The model with torch's norm and ReLU instead of the fused ones."""
    for name, child in model.named_children():
        if isinstance(child, BatchNorm2d):
            setattr(model, name, TorchNorm(child.num_features, relu=child.relu))
        else:
            torch_norms(child)
    return model


@dataclass(frozen=True)
class Case:
    """A network to time: its two kinds, its input and its number of classes.

    `batch`: images and labels instead of random ones. `lr`: the rate of the steps.
    """

    adder: nn.Module
    conv: nn.Module
    image_chw: tuple[int, int, int]
    num_outputs: int
    batch: tuple[Tensor, Tensor] | None = None
    lr: float = 0.1


def _case(name: str, image_chw: tuple[int, int, int], num_classes: int) -> Case:
    adder, conv = (
        build_model(name, kind=kind, num_classes=num_classes, in_channels=image_chw[0]) for kind in _KINDS
    )
    return Case(adder, torch_norms(conv), image_chw, num_classes)


_KINDS: tuple[Kind, Kind] = ("adder", "conv")
CASES: dict[str, Callable[[], Case]] = {
    "lenet5bn": lambda: _case("lenet5bn", (1, 32, 32), 10),
    "resnet20": lambda: _case("resnet20", (3, 32, 32), 10),
    "resnet18": lambda: _case("resnet18", (3, 224, 224), 1000),
    "resnet50": lambda: _case("resnet50", (3, 224, 224), 1000),
}

_TORCHVISIONS = ("resnet18", "resnet50")


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark from command-line words; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    check_dtype("bench step", arguments.dtype, arguments.device)
    if arguments.converted and (arguments.network not in _TORCHVISIONS or arguments.device != "cpu"):
        parser.error(
            f"expected --converted with {' or '.join(_TORCHVISIONS)} on a CPU, got {arguments.network} on "
            f"{arguments.device}"
        )
    if arguments.size and Path(arguments.network).is_dir():
        parser.error(
            f"expected no --size with a run, whose images are used as they are, got {arguments.size}"
        )
    if (arguments.image or arguments.classes) and not is_own(arguments.network):
        parser.error(
            f"expected --image and --classes with a function of your own only, got {arguments.network}; "
            "leave them out"
        )
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    image = tuple(arguments.image or (3, 224, 224))
    case = _chosen(arguments.network, image, arguments.classes or 1000, arguments.batch)
    if arguments.size:
        case = dataclasses.replace(case, image_chw=(case.image_chw[0], arguments.size, arguments.size))
    if arguments.device == "cuda":
        return _on_gpu(arguments.network, case, arguments.batch, DTYPES[arguments.dtype], arguments.seconds)
    steps = _steps(case, arguments.batch)
    if arguments.converted:
        steps = {"adder": steps["adder"], **_converted_steps(arguments.network, case, arguments.batch)}
    times = interleaved(steps, seconds=arguments.seconds)
    print(
        f"{arguments.network}, batch {arguments.batch}, {arguments.threads} thread(s), float32, channels-last"
    )
    for name, timing in times.items():
        print(f"{name:9s} median {1e3 * timing.median:7.2f} ms, best {1e3 * timing.best:7.2f} ms a step")
    first, *others = times
    for other in others:
        over, under = (other, first) if arguments.converted else (first, other)
        print(f"{over} / {under}: {times[over].median / times[under].median:.3f}")
    return 0


def _chosen(name: str, image_chw: tuple[int, int, int], num_classes: int, batch: int) -> Case:
    if Path(name).is_dir():
        return _case_of_run(Path(name), batch)
    if is_own(name):
        return _case(name, image_chw, num_classes)
    if name not in CASES:
        hint = nearest(name, CASES, otherwise="name one of them")
        raise UsageError(
            f"bench step: expected {', '.join(CASES)}, package.module:function or a run directory, got "
            f"{name!r}; {hint}"
        )
    return CASES[name]()


def _case_of_run(run: Path, batch: int) -> Case:
    """The network of a finished run on the first images of its first epoch; steps leave it as it is."""
    # Here: what trains needs Lightning, and the other cases do not.
    from addertrain.data import build_loader
    from addertrain.train.building import build_network
    from addertrain.train.normalisation import normalised, scale_and_shift
    from addertrain.train.trained import trained_network

    trained = trained_network(run, recalibrate_batches=0)
    recipe = trained.recipe
    if recipe.model.kind != "adder":
        raise UsageError(
            f"bench step: expected a run with model.kind adder, got {run} with {recipe.model.kind}; name the "
            "run of an adder network"
        )
    settings = dataclasses.replace(recipe.data, global_batch_size=batch)
    assert trained.data is not None
    loader = build_loader(trained.data, settings, training=True, seed=recipe.train.seed)
    with contextlib.closing(loader), contextlib.closing(loader.batches(0, [0])) as batches:
        first = next(batches)
    images = normalised(first.images, *scale_and_shift(trained.mean, trained.std), channels_last=True)
    conv = build_network(
        recipe.model, num_classes=trained.num_classes, in_channels=images.shape[1], kind="conv"
    )
    return Case(
        trained.model.train(),
        torch_norms(conv),
        trained.image_shape,
        trained.num_classes,
        batch=(images, first.labels),
        lr=0.0,
    )


def _on_gpu(name: str, case: Case, batch: int, dtype: torch.dtype, seconds: float) -> int:
    device = cuda_step.device()
    steps = _steps(case, batch, device=device, dtype=dtype)
    times = interleaved_on_gpu(steps, seconds=seconds)
    print(f"{name}, batch {batch}, {torch.cuda.get_device_name(device)}, {dtype}, channels-last")
    for kind, step in steps.items():
        print(cuda_step.report(kind, batch, times[kind].median, cuda_step.split_of(step)))
    print(f"adder / conv: {times['adder'].median / times['conv'].median:.2f}")
    return 0


def _steps(
    case: Case, batch: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, Callable[[], None]]:
    """A step of each kind; in 16 bits under autocast."""
    images, labels = _batch(case, batch, device)
    adder, conv = (
        model.to(device).to(memory_format=torch.channels_last) for model in (case.adder, case.conv)
    )
    adder_sgd = AdderSGD(param_groups(adder, weight_decay=5e-4), lr=case.lr)
    conv_sgd = torch.optim.SGD(conv.parameters(), lr=case.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return {
        "adder": lambda: training_step(adder, adder_sgd, images, labels, dtype),
        "conv": lambda: training_step(conv, conv_sgd, images, labels, dtype),
    }


def _batch(case: Case, batch: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    if case.batch is not None:
        return case.batch[0].to(device), case.batch[1].to(device)
    c, h, w = case.image_chw
    images = torch.randn(batch, h, w, c, device=device).permute(0, 3, 1, 2)
    return images, torch.randint(case.num_outputs, (batch,), device=device)


def _converted_steps(name: str, case: Case, batch: int) -> dict[str, Callable[[], None]]:
    """Steps of torchvision's network, converted: by its own code, and fused."""
    import torchvision.models  # here: seconds that no other benchmark needs

    images, labels = _batch(case, batch, "cpu")
    network = getattr(torchvision.models, name)(num_classes=case.num_outputs)
    own_code = convert(network, keep=("conv1", "fc")).to(memory_format=torch.channels_last)
    fused = copy.deepcopy(own_code)
    print(fuse(fused, images))

    def step_of(model: nn.Module) -> Callable[[], None]:
        optimizer = AdderSGD(param_groups(model, weight_decay=5e-4), lr=0.1)
        return lambda: training_step(model, optimizer, images, labels)

    return {"converted": step_of(own_code), "fused": step_of(fused)}


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    dtype: torch.dtype = torch.float32,
) -> None:
    """One step on a batch; in 16 bits under autocast."""
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="addertrain bench step",
        description="Compares the time of a training step with that of the convolutional baseline, on this "
        "CPU or a GPU.",
    )
    parser.add_argument(
        "network",
        metavar="NETWORK",
        help=f"the network: {', '.join(CASES)}, a function of your own as package.module:function, or a run "
        "directory, whose weights and training images are then used",
    )
    parser.add_argument(
        "--image",
        type=whole_number(),
        nargs=3,
        metavar=("C", "H", "W"),
        help="the image shape of a network of your own (default: 3 224 224)",
    )
    parser.add_argument("--classes", type=whole_number(), help="its number of classes (default: 1000)")
    parser.add_argument(
        "--threads", type=whole_number(), default=1, help="the number of processor cores to use (default: 1)"
    )
    parser.add_argument("--batch", type=whole_number(), default=256, help="the batch size (default: 256)")
    parser.add_argument(
        "--seconds",
        type=number(can_be_0=True),
        default=15.0,
        help="how long to measure in total (default: 15)",
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="the device to measure (default: cpu)"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="the data type of autocast on a GPU (default: float32)",
    )
    parser.add_argument(
        "--size", type=whole_number(), help="the height and width of images (default: those of the data set)"
    )
    parser.add_argument(
        "--converted",
        action="store_true",
        help="also measure torchvision's resnet18 or resnet50 after addertrain.nn.convert, with and without "
        "fusing (on a CPU)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
