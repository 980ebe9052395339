"""What `convert` makes of the networks of others: a table, and what trains one of them.

    python -m tests.nn.zoo [--size 224] [NAME ...]

A row for each of torchvision's classification networks: how many layers became adder layers, which stay and
why, how many elements |x - w| an image takes, and a training step's processor time as a multiple of the
original's, at a batch of 2 on one thread. The papers' first and last layer stay convolutions.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn

from addertrain.models import count_operations
from addertrain.nn import AdderConv2d, AdderLinear, convert
from addertrain.nn.conversion import Conversion

_FIXED_SIZES = {"vit_": 224, "inception_v3": 299, "swin_": 224, "maxvit_t": 224}
_REPEATS = 3


def names() -> list[str]:
    """torchvision's classification networks."""
    return sorted(torchvision.models.list_models(module=torchvision.models))


def build(name: str) -> nn.Module:
    """With ten classes and nothing trained."""
    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=10, **settings)
    return model


def first_and_last(model: nn.Module) -> tuple[str, ...]:
    """The layers that the papers keep: the first convolution, and the last layer with weights."""
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return layers[0], layers[-1]


def kept_by_need(model: nn.Module) -> tuple[str, ...]:
    """Attention multiplies by its projections' weights itself, so that they cannot be adder layers."""
    kinds = (nn.MultiheadAttention, *_window_attention())
    return tuple(name for name, module in model.named_modules() if isinstance(module, kinds))


def _window_attention() -> tuple[type[nn.Module], ...]:
    from torchvision.models.swin_transformer import ShiftedWindowAttention

    return (ShiftedWindowAttention,)


def converted(model: nn.Module, example: Tensor) -> nn.Module:
    """Fused, with the first and the last layer kept."""
    return convert(model, keep=(*first_and_last(model), *kept_by_need(model)), example=example)


@dataclass(frozen=True)
class Row:
    """A network in the table; `why` where it is not converted."""

    name: str
    conversion: Conversion | None = None
    elements: int = 0
    time_ratio: float = 0.0
    why: str = ""

    def __str__(self) -> str:
        if self.conversion is None:
            return f"| {self.name} | 0 | {self.why} | | |"
        reasons = Counter((self.conversion.kept | self.conversion.skipped).values())
        kept = "; ".join(f"{count} {reason}" for reason, count in reasons.items())
        return (
            f"| {self.name} | {len(self.conversion.converted)} | {kept} | {self.elements / 1e6:.0f} M | "
            f"{self.time_ratio:.1f} |"
        )


def step_seconds(model: nn.Module, x: Tensor) -> float:
    """Processor time of a forward and a backward pass."""
    model.train()
    seconds = []
    for _ in range(_REPEATS):
        start = time.process_time()
        y = model(x)
        (y if isinstance(y, Tensor) else y[0]).square().mean().backward()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds[1:])


def row(name: str, size: int) -> Row:
    """Converts the network, counts it and runs it beside its original."""
    size = next((fixed for prefix, fixed in _FIXED_SIZES.items() if name.startswith(prefix)), size)
    model, x = build(name), torch.randn(2, 3, size, size)
    try:
        twin = converted(model, x)
    except ValueError as error:
        return Row(name, why=str(error))
    assert any(isinstance(module, AdderConv2d | AdderLinear) for module in twin.modules())
    found = twin.conversion
    assert isinstance(found, Conversion)
    elements = count_operations(twin, (3, size, size)).adder_elements
    return Row(name, found, elements, step_seconds(twin, x) / step_seconds(model, x))


def main(words: Sequence[str]) -> int:
    """Prints the table, a row at a time; exit code 1 if a network was not converted."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.nn.zoo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks (default: all of torchvision's)")
    parser.add_argument("--size", type=int, default=224, help="of the images (default: 224)")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    print("| network | adder layers | kept, and why | elements an image | step time |\n|---|---|---|---|---|")
    failed = 0
    for name in arguments.names or names():
        torch.manual_seed(0)
        made = row(name, arguments.size)
        print(made, flush=True)
        failed += made.conversion is None
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
