"""Evaluation in 8 bits: inputs and filters of an adder layer are bytes with the same scale.

An adder layer needs one scale s and zero point z for both operands, because it subtracts one from the other:
q(v) = round(v / s) + z in 0 .. 255. Filters beyond the inputs' range lose nothing: where w < lo <= x,
|x - w| = |x - lo| + |lo - w|, so they are clipped and the rest is a constant of the filter.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addertrain.nn.adder import AdderConv2d
from addertrain.nn.packing import KeptPacking
from addertrain.nn.padding import padded
from addertrain.nn.tracing import leaf_of_fx
from addertrain.ops.int8 import MAX_TERMS, adder2d_int8, adder2d_int8_packed
from addertrain.ops.int8_norm import pack_int8
from addertrain.ops.precision import wide

LEVELS = 255


@dataclass(frozen=True)
class Grid:
    """Bytes for a range of numbers that holds 0: value = scale * (byte - zero)."""

    scale: float
    zero: int

    @classmethod
    def over(cls, low: float, high: float) -> "Grid":
        """The finest grid over [low, high] and 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / LEVELS or 1.0
        return cls(scale, min(LEVELS, round(-low / scale)))

    def bytes_of(self, values: Tensor) -> Tensor:
        """The nearest bytes; values beyond the grid are clipped, and a NaN gives byte 0."""
        # In 16 bits the quotient and the sum would be rounded, by up to a byte each.
        places = wide(values) / self.scale + self.zero
        return places.nan_to_num_(nan=0.0).round_().clamp_(0, LEVELS).to(torch.uint8)

    def values_of(self, bytes_: Tensor) -> Tensor:
        """The numbers that bytes represent."""
        return (bytes_.double() - self.zero) * self.scale


class Int8AdderConv2d(nn.Module):
    """An AdderConv2d for evaluation, its response computed from bytes.

    Y = offset - scale * sum |x_q - w_q|, offset = -sum |w - clip(w)| per filter (offset-free: + sum |w|).
    """

    weight_bytes: Tensor
    offset: Tensor

    def __init__(self, layer: AdderConv2d, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation
        self.edges, self.padding_mode = layer.edges, layer.padding_mode
        self.is_grouped = layer.groups > 1
        w = layer.weight.detach().double()
        ends = grid.values_of(torch.tensor([0, LEVELS], device=w.device))
        beyond = (w - w.clamp(ends[0], ends[1])).abs().sum((1, 2, 3))
        offset = (w.abs().sum((1, 2, 3)) if layer.offset_free else 0.0) - beyond
        if layer.bias is not None:
            offset = offset + layer.bias.detach().double()
        self.register_buffer("weight_bytes", grid.bytes_of(layer.weight.detach()))
        self.register_buffer("offset", offset.float().view(1, -1, 1, 1))
        self._packing = KeptPacking(pack_int8)

    @leaf_of_fx
    def forward(self, x: Tensor) -> Tensor:
        bytes_ = self.grid.bytes_of(padded(x, self.edges, self.padding_mode))
        padding = self.padding
        if (
            self.grid.zero and max(padding) > 0
        ):  # the operator pads with byte 0, which is not the number 0 here
            bytes_ = F.pad(bytes_, (padding[1],) * 2 + (padding[0],) * 2, value=self.grid.zero)
            padding = (0, 0)
        w, sizes = self.weight_bytes, (self.stride, padding, self.dilation)
        if self.is_grouped:  # whose filters are packed by the call
            distances = adder2d_int8(bytes_, w, *sizes)
        else:
            distances = adder2d_int8_packed(bytes_, w, self._packing.of(w), *sizes)
        return (self.offset - self.grid.scale * distances).to(x.dtype)

    def extra_repr(self) -> str:
        grid = f"scale={self.grid.scale:.4g}, zero={self.grid.zero}"
        return f"{grid}, stride={self.stride}, padding={self.padding}"


def is_l1(layer: AdderConv2d) -> bool:
    """Whether the response is Eq. 2: other variants may take another power."""
    return layer.variant is None or layer.variant.p == 1


def calibrate(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, Grid]:
    """A grid for each adder layer that can use bytes, by name, over all its inputs in `batches`.

    The batches pass through once, in the mode that the model is in, without gradients. A layer that stands in
    several places of the model has a grid by each of its names.

    Raises:
        ValueError: without an image, for inputs that are not finite, or if the model itself is the layer.
    """
    layers = {
        name: layer
        for name, layer in model.named_modules(remove_duplicate=False)
        if isinstance(layer, AdderConv2d) and is_l1(layer) and layer.weight[0].numel() <= MAX_TERMS
    }
    if layers.get("") is model:
        raise ValueError(
            f"calibrate: expected a network that contains adder layers, got {type(model).__name__} itself; "
            "put it into torch.nn.Sequential."
        )
    return grids_of(model, batches, inputs=layers)


def grids_of(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    inputs: Mapping[str, nn.Module],
    outputs: Mapping[str, nn.Module] = MappingProxyType({}),
) -> dict[str, Grid]:
    """A grid for what each module of `inputs` reads and each of `outputs` gives, by name; see `calibrate`.

    Raises:
        ValueError: without an image, or for numbers that are not finite.
    """
    ranges: dict[str, tuple[float, float]] = {}

    def watch(name: str, x: Tensor) -> None:
        if x.numel() == 0:
            return
        low, high = (float(end) for end in torch.aminmax(x))
        if not math.isfinite(low) or not math.isfinite(high):
            raise ValueError(
                f"calibrate: expected finite numbers at layer {name}, got a range from {low} to {high}; "
                "check the images, and whether the network's training diverged."
            )
        before = ranges.get(name, (low, high))
        ranges[name] = min(low, before[0]), max(high, before[1])

    handles = [
        *(
            module.register_forward_pre_hook(lambda _, read, name=name: watch(name, read[0]))
            for name, module in inputs.items()
        ),
        *(
            module.register_forward_hook(lambda _, __, given, name=name: watch(name, given))
            for name, module in outputs.items()
        ),
    ]
    try:
        with torch.no_grad():
            for batch in batches:
                model(batch)
    finally:
        for handle in handles:
            handle.remove()
    if (inputs or outputs) and not ranges:
        raise ValueError(
            "calibrate: expected at least one batch of images that reaches the adder layers, got none; give "
            "some of the training images."
        )
    return {name: Grid.over(*ends) for name, ends in ranges.items()}


@contextmanager
def in_int8(model: nn.Module, grids: dict[str, Grid]) -> Iterator[None]:
    """Evaluates with these layers in 8 bits; afterwards the layers are restored."""
    layers = {name: model.get_submodule(name) for name in grids}
    try:
        for name, layer in layers.items():
            assert isinstance(layer, AdderConv2d)
            _put(model, name, Int8AdderConv2d(layer, grids[name]))
        yield
    finally:
        for name, layer in layers.items():
            _put(model, name, layer)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
