"""Counts the operations of any model for one image with hooks, and estimates their cost.

A layer of E pairs (x, w) takes E multiplications and E additions as a convolution, 2 E additions as an
adder layer, and E XNORs with E counted bits as a binary one. As in the papers, norms, pools and activations
are left out; operations of norms are counted separately.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from addertrain.nn import AdderConvTranspose2d, BinaryConv2d
from addertrain.nn.kinds import AdderLayer
from addertrain.ops.transposed import Transposition

LayerKind = Literal["adder", "conv", "binary"]

# VIA Nano 2000, float32: a multiplication takes 4 cycles, an addition 2 (Chen et al. 2020, section 4.1).
MULTIPLICATION_CYCLES = 4
ADDITION_CYCLES = 2
# The paper gives no price for binary layers; 64 binary operations a cycle are XNOR-Net's estimate for a
# processor (Rastegari et al. 2016, section 4.1).
BINARY_CYCLES = 1 / 64

# Energy of float32 arithmetic at 45 nm and 0.9 V, in pJ (Horowitz, "Computing's energy problem", ISSCC 2014,
# Fig. 1.1.9).
MULTIPLICATION_PJ = 3.7
ADDITION_PJ = 0.9
# The same table has no XNOR; an 8-bit integer addition (0.03 pJ) stands for one and the counting of its bit.
BINARY_PJ = 0.03


@dataclass(frozen=True)
class LayerCount:
    """One layer; `pairs` is the number of pairs (x, w) in one pass over one image."""

    name: str
    kind: LayerKind
    pairs: int
    num_weights: int

    @property
    def multiplications(self) -> int:
        """Of numbers."""
        return self.pairs if self.kind == "conv" else 0

    @property
    def additions(self) -> int:
        """Of numbers: sums and, in an adder layer, differences."""
        return {"adder": 2 * self.pairs, "conv": self.pairs, "binary": 0}[self.kind]

    @property
    def xnors(self) -> int:
        """Of single bits, each counted afterwards; the papers list the counting among the additions."""
        return self.pairs if self.kind == "binary" else 0


@dataclass(frozen=True)
class OperationCount:
    """The operations of a network for one image."""

    layers: tuple[LayerCount, ...]
    norm_elements: int
    num_parameters: int

    @property
    def multiplications(self) -> int:
        """Of all layers."""
        return sum(layer.multiplications for layer in self.layers)

    @property
    def additions(self) -> int:
        """Of all layers."""
        return sum(layer.additions for layer in self.layers)

    @property
    def xnors(self) -> int:
        """Of all layers."""
        return sum(layer.xnors for layer in self.layers)

    @property
    def adder_elements(self) -> int:
        """Evaluations of |x - w|."""
        return sum(layer.pairs for layer in self.adder_layers)

    @property
    def adder_layers(self) -> tuple[LayerCount, ...]:
        """Only the adder layers."""
        return tuple(layer for layer in self.layers if layer.kind == "adder")


def count_operations(model: nn.Module, input_size: Sequence[int]) -> OperationCount:
    """Counts a forward pass over one image of `input_size`, (C, H, W); the model does not change.

    A copy runs on torch's meta device, so that nothing is computed; a layer that runs twice counts twice.

    Raises:
        ValueError: a model that does not take such images.
    """
    layers: list[LayerCount] = []
    norm_elements = 0

    def count(name: str, module: nn.Module, x: Any, y: Tensor) -> None:
        nonlocal norm_elements
        if isinstance(module, _BatchNorm):
            norm_elements += y.numel()
        elif (kind := _kind_of(module)) is not None:
            layers.append(_count_layer(module, name, kind, x, y))

    try:
        watch_one_image(model, input_size, count)
    except RuntimeError as error:
        raise ValueError(
            f"count_operations: expected a model for images of size {tuple(input_size)}, got an error: "
            f"{error}; give input_size as (channels, height, width)"
        ) from None
    return OperationCount(tuple(layers), norm_elements, sum(param.numel() for param in model.parameters()))


def watch_one_image(
    model: nn.Module, input_size: Sequence[int], watch: Callable[[str, nn.Module, Any, Any], None]
) -> None:
    """Calls `watch` with the name, module, first input and output of each module in a pass over an image.

    A copy of the model runs in evaluation mode on torch's meta device: nothing is computed, and the model
    does not change.
    """
    shadow = copy.deepcopy(model).to("meta").eval()
    for name, module in shadow.named_modules():
        module.register_forward_hook(lambda module, inputs, y, name=name: watch(name, module, inputs[0], y))
    with torch.no_grad():
        shadow(torch.empty(1, *input_size, device="meta"))


def _kind_of(module: nn.Module) -> LayerKind | None:
    if isinstance(module, AdderLayer):
        return "adder"
    if isinstance(module, BinaryConv2d):
        return "binary"
    return "conv" if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) else None


def _count_layer(module: nn.Module, name: str, kind: LayerKind, x: Tensor, y: Tensor) -> LayerCount:
    weight = module.get_parameter("weight")
    if (geometry := _transposition(module)) is not None:
        each = geometry.pairs(x.shape[2:]) * weight.shape[0] * weight.shape[1]
        return LayerCount(name, kind, each * x.shape[0], weight.numel())
    # Every output element meets one filter's worth of weights, with groups as well.
    return LayerCount(name, kind, y.numel() * weight[0].numel(), weight.numel())


def _transposition(module: nn.Module) -> Transposition | None:
    if isinstance(module, AdderConvTranspose2d):
        return module.geometry
    if not isinstance(module, nn.ConvTranspose2d):
        return None
    names = ("kernel_size", "stride", "padding", "output_padding", "dilation")
    kernel, stride, padding, more, dilation = (
        (numbers[0], numbers[1]) for numbers in (getattr(module, name) for name in names)
    )
    return Transposition(kernel, stride, padding, more, dilation)


def via_nano_cycles(count: OperationCount) -> float:
    """Latency of one image in cycles, for the arithmetic only."""
    return (
        MULTIPLICATION_CYCLES * count.multiplications
        + ADDITION_CYCLES * count.additions
        + BINARY_CYCLES * count.xnors
    )


def energy_joules(count: OperationCount) -> float:
    """Energy of one image's arithmetic in joules, without memory."""
    picojoules = (
        MULTIPLICATION_PJ * count.multiplications + ADDITION_PJ * count.additions + BINARY_PJ * count.xnors
    )
    return picojoules * 1e-12
