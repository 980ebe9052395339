"""The adder layer written out from the paper's equations: oracle of every test, fallback where no kernel is.

    Y[n,o,p,q]  = -sum_{c,r,s} |X - F|                                                             (Eq. 2)
    dF[o,c,r,s] = sum_{n,p,q} dY * (X - F)                                                         (Eq. 5)
    dX[n,c,h,w] = sum_{o,r,s} dY * HT(F - X),  HT(d) = min(max(d, -1), 1)                          (Eq. 6, 7)

X is the zero-padded input under the filter; a padded tap is x = 0 and takes part. Chen et al., "AdderNet: Do
We Really Need Multiplications in Deep Learning?", CVPR 2020. Computes in float64 for float64 and in float32
otherwise; one filter at a time, so that memory stays at one unfolded input. Y and dX have the layout of X, dF
that of F.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from addertrain.ops.geometry import Sizes, output_shape
from addertrain.ops.layout import empty_like_input


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _patches(x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes) -> Tensor:
    """X of Eq. 2 as [N, K, P*Q], K = C*R*S."""
    if x.shape[0] == 0:
        _, _, p, q = output_shape(x, weight, stride, padding, dilation)
        return x.new_zeros(0, weight[0].numel(), p * q)
    return F.unfold(
        x, tuple(weight.shape[2:]), dilation=tuple(dilation), padding=tuple(padding), stride=tuple(stride)
    )


def adder2d(
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    offset_free: bool,
) -> Tensor:
    """Eq. 2 or, with `offset_free`, Eq. 2 + sum|F| = sum(|F| - |X - F|). x_nchw, w_ocrs -> y_nopq."""
    patches = _patches(_wide(x), weight, stride, padding, dilation)
    filters = _wide(weight).flatten(1)
    responses = []
    for w_k in filters:
        w_k1 = w_k.unsqueeze(1)
        offset = w_k1.abs() if offset_free else 0.0
        responses.append((offset - (patches - w_k1).abs()).sum(1))
    shape = output_shape(x, weight, stride, padding, dilation)
    return empty_like_input(shape, x).copy_(torch.stack(responses, 1).view(shape))


def adder2d_grad_input(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
) -> Tensor:
    """Eq. 6 and 7. dy_nopq, x_nchw, w_ocrs -> dx_nchw."""
    if x.shape[0] == 0:
        return empty_like_input(x.shape, x)
    patches = _patches(_wide(x), weight, stride, padding, dilation)
    dy_nom = _wide(dy).flatten(2)
    dx_patches = torch.zeros_like(patches)
    for o, w_k in enumerate(_wide(weight).flatten(1)):
        dx_patches += dy_nom[:, o : o + 1] * (w_k.unsqueeze(1) - patches).clamp(-1, 1)
    dx = F.fold(
        dx_patches,
        tuple(x.shape[2:]),
        tuple(weight.shape[2:]),
        dilation=tuple(dilation),
        padding=tuple(padding),
        stride=tuple(stride),
    )
    return empty_like_input(x.shape, x).copy_(dx)


def adder2d_grad_weight(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
) -> Tensor:
    """Eq. 5, not clipped. dy_nopq, x_nchw, w_ocrs -> dw_ocrs."""
    patches = _patches(_wide(x), weight, stride, padding, dilation)
    dy_nom = _wide(dy).flatten(2)
    gradients = [
        (dy_nom[:, o : o + 1] * (patches - w_k.unsqueeze(1))).sum((0, 2))
        for o, w_k in enumerate(_wide(weight).flatten(1))
    ]
    return torch.empty_like(weight).copy_(torch.stack(gradients).view(weight.shape))
