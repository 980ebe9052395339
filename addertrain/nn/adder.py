"""Adder layers as modules, shaped like torch's Conv2d and Linear.

They hold the filters and their geometry; the response and its gradients are the operator's (addertrain.ops),
the learning rate is the optimizer's.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from addertrain.nn.padding import PaddingMode, check_mode, padded, same_padding, split_padding
from addertrain.nn.tracing import leaf_of_fx
from addertrain.ops import functional
from addertrain.ops.variants import Variant

Size2d = int | tuple[int, int]


class AdderFilters(nn.Module):
    """What every adder layer holds: filters, perhaps a bias, and the variant that it computes."""

    variant: Variant | None = None
    """Another variant of the layer (`addertrain.nn.set_variant`); None: the paper's."""
    was_called = False
    """Whether a forward pass went through it, which its filter's gradient should come from (`groups`)."""

    def _create_parameters(
        self,
        filter_shape: tuple[int, ...],
        num_outputs: int,
        *,
        bias: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        """Creates `weight`, and `bias` with one number for each output channel, and draws them."""
        self.weight = nn.Parameter(torch.empty(filter_shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(num_outputs, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the filters from N(0, 1); set the bias to 0."""
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class AdderConv2d(AdderFilters):
    """Y[n,o,p,q] = -sum |X - F| over the patch at (p, q): a convolution that adds (Chen et al. 2020, Eq. 2).

    With `offset_free` the response is Y + sum |F[o]|: the same network wherever a norm follows, and kinder to
    its running means and to 16 bits. Filters start from N(0, 1) whatever the fan-in; the bias, if any, from
    0. `rectified` promises that x is what a ReLU let through: the ReLU drops the gradient of its zeros, and
    the input gradient may be left out where x = 0. In G `groups` filter o sees the channels of its group
    alone, as in a grouped convolution; the adaptive learning rate stays one for the whole layer: k of
    Eq. 13 counts all its filters' elements, O * C/G * R * S. `padding` and `padding_mode` are torch's, and
    "same" with a stride u is TensorFlow's: of H rows it makes ceil(H / u). A padded zero takes part in the
    sum as any x does.

    Shapes: x_nchw (N, in_channels, H, W) to (N, out_channels, P, Q), in the layout of x.

    Raises:
        ValueError, TypeError: sizes that are not positive (padding: negative), groups that do not divide the
            channels and the filters, another padding or mode than torch's.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size2d,
        stride: Size2d = 1,
        padding: Size2d | Literal["same", "valid"] = 0,
        dilation: Size2d = 1,
        *,
        bias: bool = False,
        offset_free: bool = False,
        rectified: bool = False,
        groups: int = 1,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = _at_least(1, in_channels, "AdderConv2d", "in_channels")
        self.out_channels = _at_least(1, out_channels, "AdderConv2d", "out_channels")
        self.groups = _divisor_of((self.in_channels, self.out_channels), groups)
        self.kernel_size = _pair_at_least(1, kernel_size, "kernel_size")
        self.stride = _pair_at_least(1, stride, "stride")
        self.dilation = _pair_at_least(1, dilation, "dilation")
        self.padding_mode = check_mode("AdderConv2d", padding_mode)
        if padding == "same":
            self.padding, self.edges = same_padding(
                self.kernel_size, self.stride, self.dilation, self.padding_mode
            )
        else:
            zeros = (0, 0) if padding == "valid" else _pair_at_least(0, padding, "padding")
            self.padding, self.edges = split_padding(zeros, self.padding_mode)
        self.offset_free = offset_free
        self.rectified = rectified
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self._create_parameters(shape, self.out_channels, bias=bias, device=device, dtype=dtype)

    @property
    def filter_numel(self) -> int:
        """Elements of the unsharded filter, even if `weight` is sharded or not initialised yet."""
        return self.out_channels * (self.in_channels // self.groups) * math.prod(self.kernel_size)

    @leaf_of_fx
    def forward(self, x: Tensor) -> Tensor:
        self.was_called = True
        x = self.padded(x)
        arguments = (x, self.weight, self.stride, self.padding, self.dilation, self.offset_free)
        if self.variant is None:
            y = functional.adder2d(*arguments, rectified=self.rectified, groups=self.groups)
        else:
            y = self.variant.adder2d(*arguments, groups=self.groups)
        # In the response's dtype: under autocast a float32 bias would widen it.
        return y if self.bias is None else y + self.bias.to(y.dtype).view(-1, 1, 1)

    def padded(self, x: Tensor) -> Tensor:
        """x with the edges that the operator, which pads by `padding`, does not give it."""
        return padded(x, self.edges, self.padding_mode)

    def extra_repr(self) -> str:
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.edges is not None:
            text += f", edges={self.edges}, padding_mode={self.padding_mode}"
        text += f", bias={self.bias is not None}, offset_free={self.offset_free}"
        return f"{text}, rectified={self.rectified}"


class AdderLinear(AdderFilters):
    """y[o] = -sum_k |x[k] - F[o,k]|: a fully connected adder layer; with `offset_free`, plus sum_k |F[o,k]|.

    Shapes: (..., in_features) to (..., out_features). Starts like AdderConv2d.

    Raises:
        ValueError, TypeError: sizes that are not positive, or an input of another width.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = False,
        offset_free: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = _at_least(1, in_features, "AdderLinear", "in_features")
        self.out_features = _at_least(1, out_features, "AdderLinear", "out_features")
        self.offset_free = offset_free
        shape = (self.out_features, self.in_features)
        self._create_parameters(shape, self.out_features, bias=bias, device=device, dtype=dtype)

    @property
    def filter_numel(self) -> int:
        """Elements of the unsharded filter, even if `weight` is sharded or not initialised yet."""
        return self.out_features * self.in_features

    @leaf_of_fx
    def forward(self, x: Tensor) -> Tensor:
        self.was_called = True
        if x.dim() < 1 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"AdderLinear: expected x of shape (..., {self.in_features}), got {tuple(x.shape)}; "
                "flatten the other dimensions first."
            )
        w_ocrs = self.weight.view(self.out_features, self.in_features, 1, 1)
        adder2d = functional.adder2d if self.variant is None else self.variant.adder2d
        y = adder2d(x.reshape(-1, self.in_features, 1, 1), w_ocrs, offset_free=self.offset_free)
        y = y.reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, bias={self.bias is not None}, offset_free={self.offset_free}"


def _at_least(smallest: int, value: Any, layer: str, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{layer}: expected {name} as an int, got {value!r}.")
    if value < smallest:
        raise ValueError(f"{layer}: expected {name} >= {smallest}, got {value}.")
    return value


def _divisor_of(channels: tuple[int, int], groups: Any) -> int:
    number = _at_least(1, groups, "AdderConv2d", "groups")
    if any(count % number for count in channels):
        raise ValueError(
            f"AdderConv2d: expected groups that divide in_channels={channels[0]} and "
            f"out_channels={channels[1]}, got {number}."
        )
    return number


def _pair_at_least(smallest: int, value: Any, name: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else value
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        words = ', "same" or "valid"' if name == "padding" else ""
        raise TypeError(f"AdderConv2d: expected {name} as an int or a pair of ints{words}, got {value!r}.")
    first, second = (_at_least(smallest, size, "AdderConv2d", name) for size in pair)
    return first, second
