"""The operators' schemas, their shapes, their fallback, their derivative and their behaviour under autocast.

Python defines all of this; a compiled library only registers kernels for its device. An operator without a
kernel runs the reference, so callers need not know what was built.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from addertrain.ops import grad_weight, reference
from addertrain.ops.geometry import Sizes
from addertrain.ops.registration import (
    LIBRARY,
    SIZES,
    define_gradient,
    define_response,
    register_autocast,
)

_warned_of: set[str] = set()


def _warn_of_reference(device_type: str) -> None:
    """Warns once per device type, independently of warning filters, because training makes millions of
    calls.
    """
    if device_type in _warned_of:
        return
    _warned_of.add(device_type)
    warnings.warn(
        f"addertrain: there are no compiled kernels for {device_type}, so adder layers use the slow "
        "reference; `addertrain --version` says what is missing; see "
        "docs/troubleshooting.md#slow-reference-kernels",
        stacklevel=2,
    )


def _adder2d(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, offset_free: bool
) -> Tensor:
    _warn_of_reference(x.device.type)
    return reference.adder2d(x, weight, stride, padding, dilation, offset_free)


def _rectified(
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    offset_free: bool,
    centred: bool = False,
) -> Tensor:
    result: Tensor = ADDER2D(x, weight, stride, padding, dilation, offset_free)
    return result


def rectified_grad_input(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    """Eq. 6 everywhere, including elements that a kernel may leave out after a ReLU."""
    result: Tensor = GRAD_INPUT(dy, x, weight, stride, padding, dilation)
    return result


def _gradients_by(grad_input: Any) -> Callable[..., tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
    """Eq. 6, by one of its two operators, and Eq. 5.

    The offset sum|F| has no part in them: they are not the exact derivatives.
    """

    def gradients(
        dy: Tensor,
        x: Tensor,
        weight: Tensor,
        stride: Sizes,
        padding: Sizes,
        dilation: Sizes,
        offset_free: bool,
        centred: bool = False,
    ) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        arguments = (dy, x, weight, stride, padding, dilation)
        return lambda: grad_input(*arguments), lambda: GRAD_WEIGHT(*arguments, centred)

    return gradients


def walks_no_lists(x: Tensor, weight: Tensor, *_: object) -> bool:
    """The answer of `walks_lists` without a compiled library: a reference computes each gradient alone."""
    return False


def reference_list_gradients(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> tuple[Tensor, Tensor]:
    """Eq. 6 everywhere, and sum dY X."""
    sizes = (stride, padding, dilation)
    return GRAD_INPUT(dy, x, weight, *sizes), grad_weight.conv2d_grad_weight(dy, x, weight, *sizes)


def _rectified_gradients(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    centred: bool = False,
) -> tuple[Tensor, Tensor]:
    sizes = (stride, padding, dilation)
    if torch.ops.addertrain.walks_lists(x, weight, *sizes):
        dx, products = LIST_GRADIENTS(dy, x, weight, *sizes)
        return dx, grad_weight.of_products(products, dy, weight, centred=centred)
    return RECTIFIED_GRAD_INPUT(dy, x, weight, *sizes), GRAD_WEIGHT(dy, x, weight, *sizes, centred)


def autocast_dtype(
    device_type: str,
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    offset_free: bool,
    *_: object,
) -> torch.dtype:
    """What autocast makes of a response in the l1 distance."""
    if torch.float64 in (x.dtype, weight.dtype):
        return torch.float64  # autocast never narrows what asked for float64
    # Raw Eq. 2 is a large constant plus a small signal; in 16 bits the constant's rounding drowns the signal.
    return torch.get_autocast_dtype(device_type) if offset_free else torch.float32


GRAD_INPUT = define_gradient("adder2d_grad_input", "", reference.adder2d_grad_input, like="x")
GRAD_WEIGHT = define_gradient(
    "adder2d_grad_weight", ", bool centred=False", grad_weight.adder2d_grad_weight, like="weight"
)
ADDER2D = define_response("adder2d", ", bool offset_free", _adder2d, _gradients_by(GRAD_INPUT))
register_autocast("adder2d", ADDER2D, autocast_dtype)

# For an x that a ReLU made: the same response and filter gradient. The ReLU drops the input gradient wherever
# x = 0, so there a kernel may leave it out, and it is 0 or Eq. 6. Nor has dY a part in the filter gradient
# where x = 0. `centred`: a norm that trains follows.
RECTIFIED_GRAD_INPUT = define_gradient("adder2d_rectified_grad_input", "", rectified_grad_input, like="x")
RECTIFIED_GRADIENTS = define_gradient(
    "adder2d_rectified_gradients", ", bool centred=False", _rectified_gradients, like="both"
)
# What it is made of: one walk over lists of non-zeros, where a compiled library says that it walks them.
LIST_GRADIENTS = define_gradient("adder2d_list_gradients", "", reference_list_gradients, like="both")
LIBRARY.define(f"walks_lists(Tensor x, Tensor weight, {SIZES}) -> bool")
LIBRARY.impl("walks_lists", walks_no_lists, "CompositeExplicitAutograd")
RECTIFIED = define_response(
    "adder2d_rectified",
    ", bool offset_free, bool centred=False",
    _rectified,
    _gradients_by(RECTIFIED_GRAD_INPUT),
    lambda dy, x, weight, stride, padding, dilation, offset_free, centred=False: RECTIFIED_GRADIENTS(
        dy, x, weight, stride, padding, dilation, centred
    ),
)
register_autocast("adder2d_rectified", RECTIFIED, autocast_dtype)
