"""The adder layer with other gradients than Eq. 5 and 6: signs, and a clip of another slope.

    dF = sum_{n,p,q} dY * sgn(X - F)              in place of X - F      (Chen et al., CVPR 2020, Eq. 4)
    dX = sum_{o,r,s} dY * HT(c (F - X))           in place of c = 1; sgn(F - X) is c = infinity

The response is that of `adder2d`. HT(c (F - X)) is the input gradient at cX and cF, at its full speed; the
filter's sign is the slow one.
"""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from addertrain.ops import pairwise, schemas
from addertrain.ops.pairwise import wide
from addertrain.ops.registration import define_gradient, define_response, register_autocast

Sizes = Sequence[int]

_STEEP = 2.0**64
"""A slope that makes HT a sign: exact, as a power of two, and 1 for every difference of 2^-64 and above."""


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


def _grad_weight_sign(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    """sum dY * sgn(X - F): no convolution, for the sign does not fall apart into X and F."""
    return pairwise.grad_weight(dy, x, weight, stride, padding, dilation, p=1.0)


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
