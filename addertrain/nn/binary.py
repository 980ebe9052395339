"""A layer of XNOR and bit counts, the binary network that adder networks are compared with."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from addertrain.nn.tracing import leaf_of_fx
from addertrain.ops.convolution import conv2d


class BinaryConv2d(nn.Conv2d):
    """Y = conv(sign(X), alpha_o sign(W)), alpha_o = mean |W_o|: XNOR-Net (Rastegari et al. 2016, section 3).

    Arguments, parameters and initialisation are torch's Conv2d's, without bias. sign(0) = 1; a padded tap
    contributes 0. The scale of each patch of X, which XNOR-Net found to matter little, is left out.

    Gradients are straight through: that of sign(X) where |X| <= 1 (the same paper), that of alpha_o sign(W)
    as it is (DoReFa-Net, Zhou et al. 2016, Eq. 9). What comes in should have both signs: no ReLU before it.

    Shapes: x_nchw (N, in_channels, H, W) to (N, out_channels, P, Q).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False)

    @property
    def filter_numel(self) -> int:
        """Elements of the unsharded filter, even if `weight` is sharded or not initialised yet."""
        return self.out_channels * self.in_channels * math.prod(self.kernel_size)

    @leaf_of_fx
    def forward(self, input: Tensor) -> Tensor:
        signs, filters = binary_sign(input), binary_filters(self.weight)
        assert not isinstance(self.padding, str)
        return conv2d(signs, filters, None, self.stride, self.padding)


def binary_sign(x: Tensor) -> Tensor:
    """1 where x >= 0, else -1; its gradient passes where |x| <= 1 and is 0 elsewhere."""
    y: Tensor = _ClippedSign.apply(x)
    return y


def binary_filters(w_ocrs: Tensor) -> Tensor:
    """alpha_o sign(W_o) with alpha_o = mean |W_o|, for each filter o; its gradient is W's."""
    y: Tensor = _ScaledSign.apply(w_ocrs)
    return y


class _ClippedSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.abs() <= 1)
        return _sign(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (is_inside,) = ctx.saved_tensors
        return grads[0] * is_inside


class _ScaledSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w_ocrs: Tensor) -> Tensor:
        return _sign(w_ocrs) * w_ocrs.abs().mean(dim=(1, 2, 3), keepdim=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def _sign(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
