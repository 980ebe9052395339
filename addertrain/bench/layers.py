"""The adder layers of the papers' networks, each shape once, as the networks themselves call them."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from addertrain.models import build_model
from addertrain.models.operations import watch_one_image
from addertrain.nn import AdderConv2d, AdderLinear


@dataclass(frozen=True)
class LayerShape:
    """One square adder layer. C channels in, O filters, `size` input height and width."""

    name: str
    C: int
    O: int  # noqa: E741
    size: int
    kernel: int
    stride: int
    padding: int
    count: int = 1

    @property
    def output_size(self) -> int:
        """Height and width of the response."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def elements_per_image(self) -> int:
        """Evaluations of |x - w| in one pass over one image."""
        return self.O * self.output_size**2 * self.C * self.kernel**2


@dataclass(frozen=True)
class Network:
    """One of our networks, the image (C, H, W) that it takes, and the batch its speed is quoted at."""

    name: str
    image: tuple[int, int, int]
    batch: int

    @functools.cached_property
    def layers(self) -> list[LayerShape]:
        """Its adder layers in the order in which they first run."""
        with torch.device("meta"):
            model = build_model(self.name, kind="adder", num_classes=10)
        counts: dict[LayerShape, int] = {}

        def note(_: str, module: nn.Module, x: Any, y: Any) -> None:
            if isinstance(module, AdderConv2d | AdderLinear):
                shape = _shape(module, x)
                counts[shape] = counts.get(shape, 0) + 1

        watch_one_image(model, self.image, note)
        return [dataclasses.replace(shape, count=count) for shape, count in counts.items()]


def _shape(layer: AdderConv2d | AdderLinear, x: Any) -> LayerShape:
    filters, C = layer.weight.shape[:2]
    if isinstance(layer, AdderLinear):
        return LayerShape(f"1x1 {C}->{filters} @1", C, filters, 1, 1, 1, 0)
    (kernel, _), (stride, _), (padding, _) = layer.kernel_size, layer.stride, layer.padding
    size = x.shape[2]
    channels = f"{filters}" if kernel == 3 and stride == 1 and filters == C else f"{C}->{filters}"
    by = f" s{stride}" if stride > 1 else ""
    name = f"{kernel}x{kernel} {channels}{by} @{size}"
    return LayerShape(name, C, filters, size, kernel, stride, padding)


NETWORKS = {
    network.name: network
    for network in (
        Network("lenet5bn", (1, 32, 32), 256),
        Network("resnet20", (3, 32, 32), 128),
        Network("resnet18", (3, 224, 224), 16),
        Network("resnet50", (3, 224, 224), 16),
    )
}
