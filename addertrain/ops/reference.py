"""The adder layer written out from the paper's equations: the oracle of every test, and the fallback without
kernels.

    Y[n,o,p,q]  = -sum_{c,r,s} |X - F|                                                             (Eq. 2)
    dF[o,c,r,s] = sum_{n,p,q} dY * (X - F)                                                         (Eq. 5)
    dX[n,c,h,w] = sum_{o,r,s} dY * HT(F - X),  HT(d) = min(max(d, -1), 1)                          (Eq. 6, 7)

X is the zero-padded input under the filter; a padded tap is x = 0 and takes part. Chen et al., "AdderNet: Do
We Really Need Multiplications in Deep Learning?", CVPR 2020. Computes in float64 for float64 and in float32
otherwise; one filter of every group at a time, so that memory stays at one unfolded input. Y and dX have the
layout of X, dF that of F.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from addertrain.ops.geometry import Sizes, output_shape
from addertrain.ops.grouping import groups_of
from addertrain.ops.layout import empty_like_input
from addertrain.ops.precision import wide


def _patches(x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes) -> Tensor:
    """X of Eq. 2 as [N, G, K, P*Q], K = C/G * R*S."""
    groups = groups_of(x, weight)
    if x.shape[0] == 0:
        _, _, p, q = output_shape(x, weight, stride, padding, dilation)
        return x.new_zeros(0, groups, weight[0].numel(), p * q)
    unfolded = F.unfold(
        x, tuple(weight.shape[2:]), dilation=tuple(dilation), padding=tuple(padding), stride=tuple(stride)
    )
    return unfolded.unflatten(1, (groups, weight[0].numel()))


def _filters(weight: Tensor, groups: int) -> list[Tensor]:
    """[G, K, 1] of the first filter of every group, of the second, ..."""
    return list(wide(weight).reshape(groups, -1, weight[0].numel(), 1).unbind(1))


def _by_group(t: Tensor, groups: int) -> Tensor:
    """[N, G, O/G, P*Q] of dy_nopq."""
    return wide(t).flatten(2).unflatten(1, (groups, t.shape[1] // groups))


def adder2d(
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    offset_free: bool,
) -> Tensor:
    """Eq. 2 or, with `offset_free`, Eq. 2 + sum|F| = sum(|F| - |X - F|). x_nchw, w_ocrs -> y_nopq."""
    patches = _patches(wide(x), weight, stride, padding, dilation)
    responses = []
    for w_gk1 in _filters(weight, patches.shape[1]):
        offset = w_gk1.abs() if offset_free else 0.0
        responses.append((offset - (patches - w_gk1).abs()).sum(2))
    shape = output_shape(x, weight, stride, padding, dilation)
    return empty_like_input(shape, x).copy_(torch.stack(responses, 2).view(shape))


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
    patches = _patches(wide(x), weight, stride, padding, dilation)
    groups = patches.shape[1]
    dy_ngom = _by_group(dy, groups)
    dx_patches = torch.zeros_like(patches)
    for o, w_gk1 in enumerate(_filters(weight, groups)):
        dx_patches += dy_ngom[:, :, o : o + 1] * (w_gk1 - patches).clamp(-1.0, 1.0)
    dx = F.fold(
        dx_patches.flatten(1, 2),
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
    patches = _patches(wide(x), weight, stride, padding, dilation)
    groups = patches.shape[1]
    dy_ngom = _by_group(dy, groups)
    gradients = [
        (dy_ngom[:, :, o : o + 1] * (patches - w_gk1)).sum((0, 3))
        for o, w_gk1 in enumerate(_filters(weight, groups))
    ]
    return torch.empty_like(weight).copy_(torch.stack(gradients, 1).view(weight.shape))
