"""Data for a layer of the table and its float64 answers, with the tolerance of each output."""

import zlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from addertrain.ops import reference
from tests.ops.layers import Layer
from tests.ops.tolerances import SAFETY, tolerance, unit_roundoff


@dataclass(frozen=True)
class Data:
    """x_nchw, w_ocrs and dy_nopq, dense, in NCHW."""

    x: Tensor
    w: Tensor
    dy: Tensor

    def double(self) -> "Data":
        return Data(self.x.double(), self.w.double(), self.dy.double())


@dataclass(frozen=True)
class Answer:
    """What an operator should give, and how far off each output may be."""

    value: Tensor
    tolerance: Tensor


@lru_cache(maxsize=4096)
def data_of(layer: Layer, dtype: torch.dtype, behind_relu: bool = False) -> Data:
    """Behind a ReLU x >= 0, half of it 0: kernels may take another path there."""
    generator = torch.Generator().manual_seed(zlib.crc32(str(layer).encode()))
    x = 1.5 * torch.randn(layer.N, layer.C, layer.H, layer.W, generator=generator)
    w = 2.0 * torch.randn(layer.O, layer.C, layer.R, layer.S, generator=generator)
    dy = torch.randn(layer.N, layer.O, *layer.output, generator=generator)
    return Data((x.relu() if behind_relu else x).to(dtype), w.to(dtype), dy.to(dtype))


@lru_cache(maxsize=4096)
def forward_answer(layer: Layer, dtype: torch.dtype, offset_free: bool, behind_relu: bool = False) -> Answer:
    data = data_of(layer, dtype, behind_relu).double()
    y = reference.adder2d(data.x, data.w, *layer.sizes, offset_free)
    magnitude = -reference.adder2d(-data.x.abs(), data.w.abs(), *layer.sizes, False)
    return Answer(y, tolerance(dtype, layer.C * layer.R * layer.S, magnitude, y))


@lru_cache(maxsize=4096)
def grad_input_answer(layer: Layer, dtype: torch.dtype, is_saturated: bool = False) -> Answer:
    return grad_input_answer_of(layer, data_of(layer, dtype), is_saturated)


def grad_input_answer_of(layer: Layer, given: Data, is_saturated: bool = False) -> Answer:
    """`is_saturated`: GPUs form HT(w - x) as 2 sat((w + 1)/2 - x/2) - 1, in 16 bits in float16.

    The rounding of (w + 1)/2 moves such an element by u (1 + |w|) at most, independently of the others.
    """
    dtype, data = given.x.dtype, given.double()
    dx = reference.adder2d_grad_input(data.dy, data.x, data.w, *layer.sizes)
    far_below = torch.full_like(data.x, -1e6)  # HT(w - x) = 1
    magnitude = reference.adder2d_grad_input(data.dy.abs(), far_below, data.w, *layer.sizes)
    allowed = tolerance(dtype, layer.O * layer.R * layer.S, magnitude, dx)
    if is_saturated:
        # The same gather with (1 + |w|)^2 in the place of HT: a convolution's input gradient.
        squares = torch.nn.grad.conv2d_input(
            data.x.shape, (1 + data.w.abs()) ** 2, data.dy**2, layer.stride, layer.padding, layer.dilation
        )
        element = torch.float16 if dtype.itemsize == 2 else dtype
        allowed = allowed + SAFETY * unit_roundoff(element) * squares.sqrt()
    return Answer(dx, allowed)


@lru_cache(maxsize=4096)
def grad_weight_answer(layer: Layer, dtype: torch.dtype) -> Answer:
    data = data_of(layer, dtype).double()
    dw = reference.adder2d_grad_weight(data.dy, data.x, data.w, *layer.sizes)
    magnitude = reference.adder2d_grad_weight(data.dy.abs(), data.x.abs(), -data.w.abs(), *layer.sizes)
    w_dy_sum = data.w * data.dy.sum((0, 2, 3)).view(-1, 1, 1, 1)
    rounded = dw.abs() + (dw + w_dy_sum).abs() + w_dy_sum.abs()
    p, q = layer.output
    return Answer(dw, tolerance(dtype, layer.N * p * q, magnitude, rounded))
