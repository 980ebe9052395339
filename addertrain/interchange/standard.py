"""A copy of a network for inference, whose layers consist of operations that every format has."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from addertrain.errors import InterchangeError
from addertrain.nn import AdderConv2d, AdderConvTranspose2d, AdderLinear, BinaryConv2d, Conv2d, OrderedLinear
from addertrain.nn.binary import binary_filters
from addertrain.nn.kinds import AdderLayer
from addertrain.nn.padding import padded
from addertrain.ops.geometry import output_size

Replacement = Callable[[AdderConv2d | AdderLinear], nn.Module]


def in_standard_operations(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode: adder and binary layers become minima, absolute values and sums.

    Raises:
        InterchangeError: an adder layer whose power is not 1.
    """
    return with_adders(
        model,
        lambda layer: (
            _StandardAdder(layer) if isinstance(layer, AdderConv2d) else _StandardAdderLinear(layer)
        ),
    )


def with_adders(model: nn.Module, replacement: Replacement) -> nn.Module:
    """A copy in evaluation mode, with another module for each adder layer.

    Binary layers become convolutions, and our own convolutions and linear layers become torch's.

    Raises:
        InterchangeError: an adder layer whose power is not 1.
    """
    twin = copy.deepcopy(model).eval()
    for name, module in list(twin.named_modules()):
        if isinstance(module, Conv2d | OrderedLinear):  # they differ in how they compute alone
            module.__class__ = nn.Conv2d if isinstance(module, Conv2d) else nn.Linear  # type: ignore[assignment]
        other: nn.Module
        if isinstance(module, AdderLayer):
            _check_power(name, module)
            if isinstance(module, AdderConvTranspose2d):
                other = _Transposed(module, replacement)
            else:
                other = replacement(module)
        elif isinstance(module, BinaryConv2d):
            other = _StandardBinary(module)
        else:
            continue
        if not name:
            return other.eval()
        parent, _, attribute = name.rpartition(".")
        setattr(twin.get_submodule(parent), attribute, other)
    return twin.eval()


def _check_power(name: str, layer: AdderLayer) -> None:
    if layer.variant is not None and layer.variant.p != 1:
        raise InterchangeError(
            f"expected adder layers of power 1, got {layer.variant.p:g} in {name}; export a checkpoint from "
            "after schedule.p_epochs"
        )


class _Transposed(nn.Module):
    """A transposed layer as the ordinary layers that compute it, in their exported form."""

    def __init__(self, layer: AdderConvTranspose2d, replacement: Replacement) -> None:
        super().__init__()
        self.layers = nn.ModuleList(map(replacement, layer.ordinary_layers()))
        self.geometry, self.groups, self.bias = layer.geometry, layer.groups, layer.bias

    def forward(self, x_nchw: Tensor) -> Tensor:
        y = self.geometry.assembled([layer(x_nchw) for layer in self.layers], x_nchw, self.groups)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


class _StandardAdder(nn.Module):
    """Eq. 2 tap by tap: each (r, s) compares a shifted image with one column of the filters.

    The largest intermediate has O times the elements of x, instead of O·R·S times those of an unfolding.
    """

    def __init__(self, layer: AdderConv2d) -> None:
        super().__init__()
        self.bias = layer.bias
        self.similarity = _Similarity.of(
            layer.weight, offset_free=layer.offset_free, rectified=layer.rectified
        )
        self.kernel_size, self.stride = layer.kernel_size, layer.stride
        self.padding, self.dilation = layer.padding, layer.dilation
        self.groups, self.edges, self.padding_mode = layer.groups, layer.edges, layer.padding_mode
        filters = self.similarity.filters
        for r, s in self._taps():
            taps = filters[:, :, r, s, None, None].clone()  # (O, C, 1, 1)
            self.register_buffer(f"filters_{r}_{s}", taps if self.groups == 1 else self._by_group(taps, 0))
        self.register_buffer("ones", filters.new_ones(self.groups, *filters.shape[1:]))
        self.register_buffer("offset", self.similarity.offset((1, 2, 3))[:, None, None])

    def _by_group(self, t: Tensor, axis: int) -> Tensor:
        """(..., groups, what is left of the axis, ...)."""
        return t.unflatten(axis, (self.groups, -1))

    def _taps(self) -> list[tuple[int, int]]:
        return [(r, s) for r in range(self.kernel_size[0]) for s in range(self.kernel_size[1])]

    def forward(self, x_nchw: Tensor) -> Tensor:
        x = padded(x_nchw, self.edges, self.padding_mode)
        x = pad(x, (self.padding[1], self.padding[1], self.padding[0], self.padding[0]))
        shifted = [
            _windows(x.shape[2 + d], self.kernel_size[d], self.stride[d], self.dilation[d]) for d in (0, 1)
        ]
        total: Tensor | None = None
        for r, s in self._taps():
            pixels = x[:, :, shifted[0][r], shifted[1][s]]
            pixels = pixels.unsqueeze(1) if self.groups == 1 else self._by_group(pixels, 1).unsqueeze(2)
            sums = self.similarity.terms(pixels, self.get_buffer(f"filters_{r}_{s}")).sum(-3)
            total = sums if total is None else total + sums
        assert total is not None
        if self.similarity.is_minimum:
            sum_x = conv2d(x, self.get_buffer("ones"), None, self.stride, 0, self.dilation, self.groups)
            total = 2.0 * total - (sum_x if self.groups == 1 else sum_x.unsqueeze(2))
        y = (total if self.groups == 1 else total.flatten(1, 2)) + self.get_buffer("offset")
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


class _StandardAdderLinear(nn.Module):
    def __init__(self, layer: AdderLinear) -> None:
        super().__init__()
        self.bias = layer.bias
        self.similarity = _Similarity.of(layer.weight, offset_free=layer.offset_free, rectified=False)
        self.register_buffer("filters", self.similarity.filters.clone())
        self.register_buffer("offset", self.similarity.offset((1,)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.similarity.terms(x.unsqueeze(-2), self.get_buffer("filters")).sum(-1)
        if self.similarity.is_minimum:
            y = 2.0 * y - x.sum(-1, keepdim=True)
        y = y + self.get_buffer("offset")
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True)
class _Similarity:
    """How the sum of a layer is written: with minima if a norm follows, otherwise as in Eq. 2.

        Σ(|w| - |x - w|) = 2·Σ min(x, w) - Σx + Σ(|w| - w)                       (offset-free)

    A minimum and its sum are two passes over the largest intermediate, instead of four for a difference, its
    absolute value and two sums, so onnxruntime takes half the time. After a ReLU negative filters count as 0.
    Far from 0 minima lose digits, so layers without a norm after them keep -Σ|x - w|.
    """

    filters: Tensor
    is_minimum: bool

    @classmethod
    def of(cls, weight: Tensor, *, offset_free: bool, rectified: bool) -> "_Similarity":
        """That of a layer; `rectified`: its input comes from a ReLU."""
        filters = weight.detach()
        return cls(filters.clamp(min=0.0) if offset_free and rectified else filters, offset_free)

    def offset(self, dims: tuple[int, ...]) -> Tensor:
        """What is added to every response of a filter, [O]."""
        if not self.is_minimum:
            return torch.zeros(self.filters.shape[0])
        return (self.filters.abs() - self.filters).sum(dims)

    def terms(self, x: Tensor, filters: Tensor) -> Tensor:
        """The terms of a layer's sum: min(x, w), or -|x - w|."""
        return torch.minimum(x, filters) if self.is_minimum else -(x - filters).abs()


def _windows(size: int, taps: int, stride: int, dilation: int) -> list[slice]:
    """The padded positions of each tap in one dimension."""
    outputs = output_size(size, taps, stride, 0, dilation)
    return [slice(t * dilation, t * dilation + (outputs - 1) * stride + 1, stride) for t in range(taps)]


class _StandardBinary(nn.Module):
    """A convolution of signs with the scaled signs of the filters, which are constants here."""

    def __init__(self, layer: BinaryConv2d) -> None:
        super().__init__()
        self.register_buffer("weight", binary_filters(layer.weight.detach()))
        self.stride, self.padding = layer.stride, layer.padding

    def forward(self, x: Tensor) -> Tensor:
        signs = torch.where(x >= 0, 1.0, -1.0)
        assert not isinstance(self.padding, str)
        return conv2d(signs, self.get_buffer("weight"), None, self.stride, self.padding)
