"""torch's convolution with two differences on CPUs: sums in float32, and correct filter gradients.

It serves the convolutional and binary layers. `grad_weight` says which layers are not given to the library,
and `precision.needs_float32_products` which are widened to float32 for it; every other one is torch's own
convolution, bit for bit and at its speed.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from addertrain.ops.geometry import Sizes
from addertrain.ops.grad_weight import conv2d_grad_weight, is_strided_pointwise
from addertrain.ops.precision import (
    dtype_of_autocast,
    needs_float32,
    needs_float32_products,
    without_autocast,
)


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = (1, 1), padding: Sizes = (0, 0)
) -> Tensor:
    """Y[n,o,p,q] = sum_{c,r,s} X[n, c, p*u + r - a, q*u + s - a] W[o,c,r,s] + b[o], stride u, zero padding a.

    x_nchw, w_ocrs, bias [O] -> y_nopq, under autocast in its dtype. 16 bits on CPUs are summed in float32
    and rounded once.
    """
    if x.dim() == 3:
        return conv2d(x.unsqueeze(0), weight, bias, stride, padding).squeeze(0)
    if x.device.type == "cpu" and (dtype := dtype_of_autocast(x, weight)):
        with torch.autocast("cpu", enabled=False):
            narrow_bias = None if bias is None else bias.to(dtype)
            return conv2d(x.to(dtype), weight.to(dtype), narrow_bias, stride, padding)
    is_ours = needs_float32_products(x, stride) or is_strided_pointwise(x, weight, stride)
    if x.dtype == weight.dtype and is_ours:
        y: Tensor = _Convolution.apply(x, weight, bias, stride, padding)
        return y
    return F.conv2d(x, weight, bias, tuple(stride), tuple(padding))


def _wide(t: Tensor) -> Tensor:
    return t.float() if needs_float32(t) else t


class _Convolution(torch.autograd.Function):
    """Its gradients are made of operations that have gradients, as those of torch's convolution are."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes) -> Tensor:
        wide_bias = None if bias is None else _wide(bias)
        return F.conv2d(_wide(x), _wide(weight), wide_bias, tuple(stride), tuple(padding)).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, *ctx.sizes = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dy = _wide(grads[0])
        x, weight = ctx.saved_tensors
        sizes = (*ctx.sizes, (1, 1))
        needs_dx, needs_dw, needs_db, *_ = ctx.needs_input_grad
        dx = dw = db = None
        with without_autocast(dy.device.type):
            if needs_dx:
                dx = torch.ops.aten.convolution_backward(
                    dy, _wide(x), _wide(weight), None, *sizes, False, [0, 0], 1, [True, False, False]
                )[0].to(x.dtype)
            if needs_dw:
                dw = conv2d_grad_weight(dy, _wide(x), _wide(weight), *sizes).to(weight.dtype)
            if needs_db:
                db = dy.sum((0, 2, 3)).to(x.dtype)
        return dx, dw, db, None, None
