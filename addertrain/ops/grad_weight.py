"""The filter gradient as a convolution's weight gradient, which cuDNN and oneDNN already do at full speed.

    dF = sum_n dY * (X - F) = conv_weight_grad(X, dY) - F * sum_{n,p,q} dY             (Eq. 5, opened)

The second term vanishes behind a training-mode batch norm, and only there: its gradient is centred.
"""

import torch
from torch import Tensor

from addertrain.ops.conv_grad_weight import conv2d_grad_weight
from addertrain.ops.geometry import Sizes


def adder2d_grad_weight(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    centred: bool = False,
) -> Tensor:
    """Eq. 5. dy_nopq, x_nchw, w_ocrs -> dw_ocrs in the layout of `weight`; any device with a convolution.

    `centred` promises that dY sums to 0 in every channel.
    """
    if dy.numel() == 0:
        return torch.zeros_like(weight)
    dw = conv2d_grad_weight(dy, x, weight, stride, padding, dilation)
    if centred:
        return torch.empty_like(weight).copy_(dw)
    accumulator = torch.float64 if dy.dtype == torch.float64 else torch.float32
    dy_sum_o = dy.sum((0, 2, 3), dtype=accumulator)
    # In 16 bits the product stays in float32: the two terms cancel wherever the mean of dY is not 0.
    return torch.sub(dw, weight * dy_sum_o.view(-1, 1, 1, 1), out=torch.empty_like(weight))
