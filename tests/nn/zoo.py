"""What `convert` makes of the networks of others: a table, and what trains one of them.

    python -m tests.nn.zoo [--size 64] [--time] [NAME ...]

A row for each of torchvision's classification networks and of timm's in `FAMILIES`: how many layers became
adder layers, which stay and why, how many elements |x - w| an image takes, and with --time a training step's
processor time as a multiple of the original's, at a batch of 2 on one thread. The papers' first and last
layer stay what they are.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torchvision
from torch import Tensor, nn

from addertrain.models import count_operations
from addertrain.nn import AdderConv2d, AdderLinear, convert
from addertrain.nn.conversion import Conversion
from addertrain.nn.convert_checks import is_convertible
from addertrain.nn.weight_reads import weight_reads

FAMILIES = {
    "vision_transformer": "vit_tiny_patch16_224",
    "efficientnet": "mobilenetv2_035",
    "resnet": "resnet10t",
    "eva": "vit_tiny_patch16_dinov3_qkvb",
    "maxxvit": "maxvit_pico_rw_256",
    "byobnet": "mobileone_s1",
    "nfnet": "nf_regnet_b0",
    "regnet": "regnetx_002",
    "mobilenetv3": "lcnet_035",
    "convnext": "convnext_zepto_rms",
    "xcit": "xcit_nano_12_p8_224",
    "cspnet": "cs3darknet_focus_s",
    "levit": "levit_128s",
    "resnetv2": "resnetv2_18",
    "metaformer": "poolformerv2_s12",
    "deit": "deit_tiny_patch16_224",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "byoanet": "halonet_h1",
    "mlp_mixer": "gmlp_ti16_224",
    "naflexvit": "naflexvit_base_patch16_parfac_gap",
}
"""The twenty modules of timm 1.0.31 with the most networks, and of each the network with the fewest
parameters, those for tests left out. A module is a family; equal numbers are in the order of the alphabet.
"""
_FIXED_SIZES = {
    "vit_": 224, "inception_v3": 299, "swin_": 224, "maxvit_t": 224, "timm:halonet_h1": 256,
}  # fmt: skip
_REPEATS = 3


def names() -> list[str]:
    """torchvision's classification networks, and timm's by "timm:" and their name."""
    return [
        *sorted(torchvision.models.list_models(module=torchvision.models)),
        *map("timm:{}".format, FAMILIES.values()),
    ]


def build(name: str, size: int = 64) -> nn.Module:
    """With ten classes and nothing trained; `size` of the images matters to some of timm's."""
    if name.startswith("timm:"):
        return _of_timm(name.removeprefix("timm:"), size)
    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=10, **settings)
    return model


def _of_timm(name: str, size: int) -> nn.Module:
    import timm

    try:
        model: nn.Module = timm.create_model(name, num_classes=10, img_size=size)
    except TypeError:  # convolutions take images of any size, and no argument for it
        model = timm.create_model(name, num_classes=10)
    return model


def first_and_last(model: nn.Module) -> tuple[str, ...]:
    """The layers that the papers keep: the first convolution, and the last layer with weights."""
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return layers[0], layers[-1]


def kept_by_need(model: nn.Module) -> dict[str, str]:
    """Layers that `convert` refuses, and why: another module multiplies by the weight, or it is no plain
    layer.
    """
    names = {module: name for name, module in model.named_modules()}
    reads = {
        names[layer]: f"that `{type(module).__name__}` reads"
        for module in names
        for layer, _ in weight_reads(module)
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    others = {
        name: f"`{type(module).__name__}`"
        for module, name in names.items()
        if isinstance(module, nn.Conv2d | nn.Linear) and not is_convertible(module)
    }
    return others | reads


def converted(model: nn.Module, example: Tensor) -> nn.Module:
    """Fused, with the first and the last layer kept, and those that have to be."""
    return convert(model, keep=dict.fromkeys((*first_and_last(model), *kept_by_need(model))), example=example)


@dataclass(frozen=True)
class Row:
    """A network in the table; `why` where it is not converted."""

    name: str
    conversion: Conversion | None = None
    needs: Mapping[str, str] | None = None
    elements: int = 0
    time_ratio: float | None = None
    why: str = ""

    def __str__(self) -> str:
        if self.conversion is None:
            return f"| {self.name} | 0 | {self.why} | | | |"
        fusion = self.conversion.fusion
        assert fusion is not None
        num_norms = len(fusion.norms) + len(fusion.norms_left)
        norms = f"{len(fusion.norms)} of {num_norms}" if num_norms else ""
        ratio = "" if self.time_ratio is None else f"{self.time_ratio:.1f}"
        return (
            f"| {self.name} | {len(self.conversion.converted)} | {self._kept()} | {norms} | "
            f"{self.elements / 1e6:.0f} M | {ratio} |"
        )

    def _kept(self) -> str:
        """What stays but for the first and the last layer, which do in every network."""
        assert self.conversion is not None
        needs = self.needs or {}
        reasons = Counter(needs[name] for name in self.conversion.kept if name in needs)
        others = (why.removesuffix(" has no adder form") for why in self.conversion.skipped.values())
        reasons.update(f"weights of `{other}`" for other in others)
        return "; ".join(f"{count} {reason}" for reason, count in reasons.items())


def step_seconds(model: nn.Module, x: Tensor) -> float:
    """Processor time of a forward and a backward pass."""
    model.train()
    seconds = []
    for _ in range(_REPEATS):
        model.zero_grad()
        start = time.process_time()
        y = model(x)
        (y if isinstance(y, Tensor) else y[0]).square().mean().backward()
        seconds.append(time.process_time() - start)
    model.zero_grad()
    return statistics.median(seconds[1:])


def row(name: str, size: int, *, timed: bool) -> Row:
    """Converts the network, counts it and runs it, beside its original if `timed`."""
    size = next((fixed for prefix, fixed in _FIXED_SIZES.items() if name.startswith(prefix)), size)
    model, x = build(name, size), torch.randn(2, 3, size, size)
    try:
        twin = converted(model, x)
    except ValueError as error:
        return Row(name, why=str(error))
    assert any(isinstance(module, AdderConv2d | AdderLinear) for module in twin.modules())
    found = twin.conversion
    assert isinstance(found, Conversion)
    elements = count_operations(twin, (3, size, size)).adder_elements
    made = Row(name, found, kept_by_need(model), elements)
    if not timed:
        y = twin.train()(x)
        (y if isinstance(y, Tensor) else y[0]).square().mean().backward()
        return made
    return replace(made, time_ratio=step_seconds(twin, x) / step_seconds(model, x))


def main(words: Sequence[str]) -> int:
    """Prints the table, a row at a time; exit code 1 if a network was not converted."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.nn.zoo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks (default: all of them)")
    parser.add_argument("--size", type=int, default=64, help="of the images (default: 64)")
    parser.add_argument("--time", action="store_true", help="compare with the original's step time")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    print("| network | adder layers | what else stays | norms fused | elements | step |")
    print("|---|---|---|---|---|---|")
    failed = 0
    for name in arguments.names or names():
        torch.manual_seed(0)
        made = row(name, arguments.size, timed=arguments.time)
        print(made, flush=True)
        failed += made.conversion is None
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
