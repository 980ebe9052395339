"""A convolution with operands of 16 bits, for the first and last layer of a network in bytes."""

import torch
from torch import Tensor, nn

from addertrain.nn.int8 import Grid
from addertrain.nn.norm import BatchNorm2d
from addertrain.nn.packing import KeptPacking
from addertrain.ops.int16 import MOST_X, conv2d_int16, integer_filters, pack_int16


class Int16Conv2d(nn.Module):
    """norm(layer(x)) of torch's Conv2d or Linear in evaluation; x_nchw is float32, of one pixel for a Linear.

    x is rounded to multiples of most / MOST_X, and a filter to multiples of its own step (`ops.int16`).

    Args:
        norm: a norm, whose ReLU only bytes have, or nn.Identity.
        most: the largest |x|; x is clipped there.
        outside: given, the result consists of bytes on this grid, from the number 0 on behind a ReLU.
    """

    weight: Tensor
    scale: Tensor
    shift: Tensor
    low: int | None

    def __init__(
        self, layer: nn.Module, norm: nn.Module, *, most: float, outside: Grid | None = None
    ) -> None:
        super().__init__()
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        self.stride, self.padding = [1, 1], [0, 0]
        if isinstance(layer, nn.Conv2d):
            assert layer.groups == 1
            assert layer.dilation == (1, 1)
            assert not isinstance(layer.padding, str)
            self.stride, self.padding = list(layer.stride), list(layer.padding)
        filters = layer.weight.detach()
        integers, step = integer_filters(filters.view(*filters.shape[:2], *filters.shape[2:] or (1, 1)))
        bias = torch.zeros_like(step) if layer.bias is None else layer.bias.detach().double()
        self.low = None
        scale, shift = step * (most / MOST_X), bias
        if isinstance(norm, BatchNorm2d):
            gamma, beta = (numbers.detach().double() for numbers in norm.scale_and_shift())
            scale, shift = scale * gamma, bias * gamma + beta
        if outside is not None:
            scale, shift = scale / outside.scale, shift / outside.scale + outside.zero
            self.low = outside.zero if isinstance(norm, BatchNorm2d) and norm.relu else 0
        self.factor = MOST_X / most
        self._packing = KeptPacking(pack_int16)
        self.register_buffer("weight", integers)
        self.register_buffer("scale", scale.float())
        self.register_buffer("shift", shift.float())

    def forward(self, x: Tensor) -> Tensor:
        return conv2d_int16(
            x, self.weight, self._packing.of(self.weight), self.stride, self.padding,
            factor=self.factor, scale=self.scale, shift=self.shift, low=self.low,
        )  # fmt: skip
