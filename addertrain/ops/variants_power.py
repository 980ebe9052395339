"""The adder layer with the p-th power of the distance, for training that goes from p = 2 to p = 1.

    Y  = -sum |X - F|^p                                 with `offset_free` plus sum |F|^p
    dF = sum dY * p |X - F|^(p-1) sgn(X - F)            dX = sum dY * p |F - X|^(p-1) sgn(F - X)

after "Universal Adder Neural Networks" (arXiv 2105.14202), which trains by the lp-norm. p = 2 is a
convolution, -|X - F|^2 = 2XF - X^2 - F^2, and so are its gradients; p = 1 is `adder2d` with the signs as
gradients. In between nothing separates into X and F: the operators POWER, POWER_GRAD_INPUT and
POWER_GRAD_WEIGHT, for which compiled libraries have kernels; `pairwise` computes them elsewhere.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from addertrain.ops import pairwise, schemas, variants_surrogate
from addertrain.ops.geometry import Sizes
from addertrain.ops.grouping import grad_input_by_group, grad_weight_by_group, response_by_group
from addertrain.ops.layout import empty_like_input
from addertrain.ops.precision import wide
from addertrain.ops.registration import define_gradient, define_response, register_autocast

_PATCH_FLOATS = 2**24
"""64 MiB of patches at a time."""


def _response(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, offset_free: bool, p: float
) -> Tensor:
    sizes = (stride, padding, dilation)
    if p == 1.0:
        result: Tensor = schemas.ADDER2D(x, weight, *sizes, offset_free)
        return result
    if p == 2.0:
        return _squared_response(wide(x), wide(weight), *sizes, offset_free).to(x.dtype)
    between: Tensor = POWER(x, weight, *sizes, offset_free, p)
    return between


@response_by_group
def _squared_response(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, offset_free: bool
) -> Tensor:
    """2 X*F - X^2*1 - sum F^2; the last term is what `offset_free` leaves out."""
    ones = torch.ones_like(weight[:1])
    y = 2 * F.conv2d(x, weight, None, stride, padding, dilation)
    y -= F.conv2d(x.square(), ones, None, stride, padding, dilation)
    if not offset_free:
        y -= weight.square().sum((1, 2, 3)).view(-1, 1, 1)
    return empty_like_input(y.shape, x).copy_(y)


def _grad_input(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, p: float
) -> Tensor:
    sizes = (stride, padding, dilation)
    if p == 1.0:
        result: Tensor = variants_surrogate.GRAD_INPUT_SLOPE(dy, x, weight, *sizes, math.inf)
        return result
    if p == 2.0:
        dx = _squared_grad_input(wide(dy), wide(x), wide(weight), *sizes)
        return empty_like_input(x.shape, x).copy_(dx)
    between: Tensor = POWER_GRAD_INPUT(dy, x, weight, *sizes, p)
    return between


@grad_input_by_group
def _squared_grad_input(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    """2 (sum dY * F - X * sum dY), both sums a convolution's input gradient."""

    def transposed(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        dx: Tensor = torch.ops.aten.convolution_backward(
            dy, x, weight, None, stride, padding, dilation, False, [0, 0], 1, [True, False, False]
        )[0]
        return dx

    if dy.numel() == 0:
        return torch.zeros_like(x)
    sum_n1hw = transposed(dy.sum(1, keepdim=True), x[:, :1], torch.ones_like(weight[:1, :1]))
    return 2 * (transposed(dy, x, weight) - x * sum_n1hw)


def _grad_weight(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, p: float
) -> Tensor:
    sizes = (stride, padding, dilation)
    result: Tensor
    if p == 1.0:
        result = variants_surrogate.GRAD_WEIGHT_SIGN(dy, x, weight, *sizes)
        return result
    if p == 2.0:
        result = 2 * schemas.GRAD_WEIGHT(dy, x, weight, *sizes)  # Eq. 5 is half of it
        return result
    result = POWER_GRAD_WEIGHT(dy, x, weight, *sizes, p)
    return result


def reference_power(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, offset_free: bool, p: float
) -> Tensor:
    """-sum |X - F|^p by torch's log2 and exp2, for every device without a kernel."""
    return pairwise.response(x, weight, stride, padding, dilation, p=p, offset_free=offset_free)


def reference_power_grad_input(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, p: float
) -> Tensor:
    """Its input gradient."""
    return pairwise.grad_input(dy, x, weight, stride, padding, dilation, p=p)


def reference_power_grad_weight(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, p: float
) -> Tensor:
    """Its filter gradient."""
    if x.device.type == "cuda" and x.dtype == torch.float32 and dy.numel() > 0:
        return exchanged_grad_weight(dy, x, weight, stride, padding, dilation, p)
    return pairwise.grad_weight(dy, x, weight, stride, padding, dilation, p=p)


@grad_weight_by_group
def exchanged_grad_weight(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, p: float
) -> Tensor:
    """By the kernel of the input gradient, with the roles of X and F exchanged."""

    def grad_input(*arguments: object) -> Tensor:
        result: Tensor = POWER_GRAD_INPUT(*arguments, p)
        return result

    return variants_surrogate.grad_weight_by_exchange(
        dy, x, weight, stride, padding, dilation, grad_input, most_floats=_PATCH_FLOATS
    )


# For 1 < p < 2 alone.
POWER_GRAD_INPUT = define_gradient(
    "adder2d_power_grad_input", ", float p", reference_power_grad_input, like="x"
)
POWER_GRAD_WEIGHT = define_gradient(
    "adder2d_power_grad_weight", ", float p", reference_power_grad_weight, like="weight"
)
GRAD_INPUT = define_gradient("adder2d_norm_grad_input", ", float p", _grad_input, like="x")
GRAD_WEIGHT = define_gradient("adder2d_norm_grad_weight", ", float p", _grad_weight, like="weight")


def _gradients_by(
    grad_input: Any, grad_weight: Any
) -> Callable[..., tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
    """Both gradients by these operators; the offset sum |F|^p has no part in them."""

    def gradients(
        dy: Tensor,
        x: Tensor,
        weight: Tensor,
        stride: Sizes,
        padding: Sizes,
        dilation: Sizes,
        offset_free: bool,
        p: float,
    ) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        arguments = (dy, x, weight, stride, padding, dilation, p)
        return lambda: grad_input(*arguments), lambda: grad_weight(*arguments)

    return gradients


POWER = define_response(
    "adder2d_power", ", bool offset_free, float p", reference_power,
    _gradients_by(POWER_GRAD_INPUT, POWER_GRAD_WEIGHT),
)  # fmt: skip
ADDER2D_NORM = define_response(
    "adder2d_norm", ", bool offset_free, float p", _response, _gradients_by(GRAD_INPUT, GRAD_WEIGHT)
)


def _autocast_dtype(device_type: str, x: Tensor, weight: Tensor, *_: object) -> torch.dtype:
    """Squares of trained filters overflow float16, and powers lose too much in bfloat16."""
    return torch.float64 if torch.float64 in (x.dtype, weight.dtype) else torch.float32


register_autocast("adder2d_power", POWER, _autocast_dtype)
register_autocast("adder2d_norm", ADDER2D_NORM, _autocast_dtype)
