"""The filter gradient as a convolution's weight gradient, which cuDNN and oneDNN already do at full speed.

    dF = sum_n dY * (X - F) = conv_weight_grad(X, dY) - F * sum_{n,p,q} dY             (Eq. 5, opened)

The second term vanishes behind a training-mode batch norm, and only there: its gradient is centred.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def adder2d_grad_weight(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    centred: bool = False,
) -> Tensor:
    """Eq. 5. dy_nopq, x_nchw, w_ocrs -> dw_ocrs in the layout of `weight`; any device with a convolution.

    `centred` promises that dY sums to 0 in every channel.
    """
    if dy.numel() == 0:
        return torch.zeros_like(weight)
    if _needs_float32(x, stride):
        dw = adder2d_grad_weight(dy.float(), x.float(), weight.float(), stride, padding, dilation, centred)
        return torch.empty_like(weight).copy_(dw)
    if _is_matrix_product(x, weight, padding):
        dw = _matrix_product(dy, x, weight)
    else:
        dw = torch.ops.aten.convolution_backward(
            dy, x, weight, None, stride, padding, dilation, False, [0, 0], 1, [False, True, False]
        )[1]
    if centred:
        return torch.empty_like(weight).copy_(dw)
    dy_sum_o = dy.sum((0, 2, 3), dtype=_accumulator(dy.dtype))
    # In 16 bits the product stays in float32: the two terms cancel wherever the mean of dY is not 0.
    return torch.sub(dw, weight * dy_sum_o.view(-1, 1, 1, 1), out=torch.empty_like(weight))


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _needs_float32(x: Tensor, stride: Sequence[int]) -> bool:
    """Whether 16 bits must be widened: convolutions on CPUs that torch 2.14.1 gets wrong.

    float16: slow, and added up in float16 where the filter is dilated. bfloat16 with a stride, channels-last:
    oneDNN writes past its buffers (1x1, a stride of rows alone) or reads what nobody wrote (one column of
    outputs).
    """
    if x.device.type != "cpu":
        return False
    return x.dtype == torch.float16 or (x.dtype == torch.bfloat16 and max(stride) > 1)


def _is_matrix_product(x: Tensor, weight: Tensor, padding: Sequence[int]) -> bool:
    """Whether the filter sees the whole input at once, as in a fully connected layer."""
    return tuple(x.shape[2:]) == tuple(weight.shape[2:]) and max(padding) == 0


def _matrix_product(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """[O, N] x [N, K]; rows of `x` as they lie in memory, so that channels-last is not copied."""
    dy_on = dy.flatten(1).t()
    if x.is_contiguous(memory_format=torch.channels_last):
        o, c, r, s = weight.shape
        return (dy_on @ x.permute(0, 2, 3, 1).flatten(1)).view(o, r, s, c).permute(0, 3, 1, 2)
    return (dy_on @ x.flatten(1)).view(weight.shape)
