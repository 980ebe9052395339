"""The adder layer with other gradients than Eq. 5 and 6: signs, or a clip with another slope.

    dF = sum_{n,p,q} dY * sgn(X - F)              in place of X - F      (Chen et al., CVPR 2020, Eq. 4)
    dX = sum_{o,r,s} dY * HT(c (F - X))           in place of c = 1; sgn(F - X) is c = infinity

The response is that of `adder2d`. HT(c (F - X)) is the input gradient at cX and cF, at its full speed; the
filter's sign is the slower one.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from addertrain.ops import pairwise, schemas
from addertrain.ops.geometry import Sizes
from addertrain.ops.grouping import grad_weight_by_group
from addertrain.ops.precision import wide
from addertrain.ops.registration import define_gradient, define_response, register_autocast

_STEEP = 2.0**64
"""A slope that makes HT a sign: exact, as a power of two, and 1 for every difference of 2^-64 and above."""
_PATCH_FLOATS = 2**18


def _grad_input(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, slope: float
) -> Tensor:
    """sum dY * HT(slope * (F - X)), in the layout of x."""
    if math.isinf(slope):
        if x.device.type != "cpu":  # kernels that scale before they subtract lose the difference
            return pairwise.grad_input(dy, x, weight, stride, padding, dilation, p=1.0)
        slope = _STEEP
    # In float32: 16 bits lose what a slope makes of them.
    dx = schemas.GRAD_INPUT(wide(dy), wide(x) * slope, wide(weight) * slope, stride, padding, dilation)
    result: Tensor = dx.to(x.dtype)
    return result


@grad_weight_by_group
def _grad_weight_sign(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    """sum dY * sgn(X - F): not a convolution, because the sign does not separate into X and F. On CPUs it is
    computed as an input gradient with the roles exchanged: a layer of 1x1 whose input are the filters and
    whose filters are the patches, dF[o,k] = sum_m dY[o,m] HT(steep (X[m,k] - F[o,k])).
    """
    if x.device.type != "cpu" or x.dtype == torch.float64 or dy.numel() == 0:
        return pairwise.grad_weight(dy, x, weight, stride, padding, dilation, p=1.0)
    return grad_weight_by_exchange(dy, x, weight, stride, padding, dilation, schemas.GRAD_INPUT, scale=_STEEP)


def grad_weight_by_exchange(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes,
    grad_input: Callable[..., Tensor], *, scale: float = 1.0, most_floats: int = _PATCH_FLOATS,
) -> Tensor:  # fmt: skip
    """dF[o,k] = sum_m dY[o,m] s(X[m,k] - F[o,k]) of a layer without groups, by its GRAD_INPUT.

    The filters are the pixels of a 1x1 layer whose filters are the patches of a few images, at most
    `most_floats` of them at a time, or one image's.

    Args:
        scale: what X and F are multiplied by.
    """
    num_filters, num_channels, R, S = weight.shape
    P, Q = dy.shape[2:]
    filters = _as_pixels(wide(weight).permute(0, 2, 3, 1).reshape(num_filters, -1)) * scale
    dw = torch.zeros_like(filters)
    images = max(1, most_floats // (P * Q * filters.shape[1]))
    for x_part, dy_part in zip(x.split(images), dy.split(images), strict=True):
        patches_mk = _patches(wide(x_part) * scale, (P, Q, R, S), stride, padding, dilation)
        dy_om = wide(dy_part).permute(1, 0, 2, 3).reshape(num_filters, -1)
        dw += grad_input(_as_pixels(dy_om), filters, patches_mk[:, :, None, None], (1, 1), (0, 0), (1, 1))
    dw_ocrs = dw.permute(0, 2, 3, 1).reshape(num_filters, R, S, num_channels).permute(0, 3, 1, 2)
    return torch.empty_like(weight).copy_(dw_ocrs)


def _as_pixels(rows: Tensor) -> Tensor:
    """[pixels, channels] as one channels-last image (1, channels, pixels, 1)."""
    return rows[None, :, None, :].permute(0, 3, 1, 2)


def _patches(
    x: Tensor, sizes: tuple[int, int, int, int], stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    """Every output's taps, in the order (r, s, c): x_nchw -> (N*P*Q, R*S*C)."""
    P, Q, R, S = sizes
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0])).contiguous()
    image, row, column, channel = padded.stride()
    windows = padded.as_strided(
        (x.shape[0], P, Q, R, S, x.shape[1]),
        (image, stride[0] * row, stride[1] * column, dilation[0] * row, dilation[1] * column, channel),
    )
    return windows.reshape(x.shape[0] * P * Q, -1)


GRAD_INPUT_SLOPE = define_gradient("adder2d_grad_input_slope", ", float slope", _grad_input, like="x")
GRAD_WEIGHT_SIGN = define_gradient("adder2d_grad_weight_sign", "", _grad_weight_sign, like="weight")


def _response(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, offset_free: bool, *_: object
) -> Tensor:
    result: Tensor = schemas.ADDER2D(x, weight, stride, padding, dilation, offset_free)
    return result


def _gradients(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, offset_free: bool,
    has_sign_filter: bool, input_slope: float,
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:  # fmt: skip
    arguments = (dy, x, weight, stride, padding, dilation)
    filter_gradient = GRAD_WEIGHT_SIGN if has_sign_filter else schemas.GRAD_WEIGHT
    return lambda: GRAD_INPUT_SLOPE(*arguments, input_slope), lambda: filter_gradient(*arguments)


ADDER2D_SURROGATE = define_response(
    "adder2d_surrogate", ", bool offset_free, bool sign_filter, float input_slope", _response, _gradients
)


register_autocast("adder2d_surrogate", ADDER2D_SURROGATE, schemas.autocast_dtype)
