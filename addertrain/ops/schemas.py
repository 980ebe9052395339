"""The operators' schemas, their shapes, their fallback, their derivative and their behaviour under autocast.

Python owns all of it; a compiled library only registers kernels for its device. What has no kernel runs the
reference, so no caller ever asks what was built.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from addertrain.ops import grad_weight, reference
from addertrain.ops.geometry import output_shape
from addertrain.ops.layout import empty_like_input

NAMESPACE = "addertrain"
_SHAPE_ARGUMENTS = "SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation"
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")
_LIBRARY.define(f"adder2d(Tensor x, Tensor weight, {_SHAPE_ARGUMENTS}, bool offset_free) -> Tensor")
_LIBRARY.define(f"adder2d_rectified(Tensor x, Tensor weight, {_SHAPE_ARGUMENTS}, bool offset_free) -> Tensor")
_LIBRARY.define(f"adder2d_grad_input(Tensor dy, Tensor x, Tensor weight, {_SHAPE_ARGUMENTS}) -> Tensor")
_LIBRARY.define(
    f"adder2d_rectified_grad_input(Tensor dy, Tensor x, Tensor weight, {_SHAPE_ARGUMENTS}) -> Tensor"
)
_LIBRARY.define(f"adder2d_grad_weight(Tensor dy, Tensor x, Tensor weight, {_SHAPE_ARGUMENTS}) -> Tensor")

ADDER2D = torch.ops.addertrain.adder2d
GRAD_INPUT = torch.ops.addertrain.adder2d_grad_input
# For an x that a ReLU made: the same response and filter gradient. The ReLU drops the input gradient wherever
# x = 0, so there a kernel may leave it out, and it is 0 or Eq. 6.
RECTIFIED = torch.ops.addertrain.adder2d_rectified
RECTIFIED_GRAD_INPUT = torch.ops.addertrain.adder2d_rectified_grad_input
GRAD_WEIGHT = torch.ops.addertrain.adder2d_grad_weight

Sizes = Sequence[int]

_warned_of: set[str] = set()


def _warn_of_reference(device_type: str) -> None:
    """Once per device type, whatever the warning filters are: a training run has millions of calls."""
    if device_type in _warned_of:
        return
    _warned_of.add(device_type)
    warnings.warn(
        f"addertrain: no compiled kernels for {device_type}, adder layers run on the slow reference; "
        "`addertrain --version` says what is missing.",
        stacklevel=2,
    )


@torch.library.impl(_LIBRARY, "adder2d", "CompositeExplicitAutograd")
def _adder2d(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, offset_free: bool
) -> Tensor:
    _warn_of_reference(x.device.type)
    return reference.adder2d(x, weight, stride, padding, dilation, offset_free)


@torch.library.impl(_LIBRARY, "adder2d_rectified", "CompositeExplicitAutograd")
def _rectified(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, offset_free: bool
) -> Tensor:
    result: Tensor = ADDER2D(x, weight, stride, padding, dilation, offset_free)
    return result


@torch.library.impl(_LIBRARY, "adder2d_rectified_grad_input", "CompositeExplicitAutograd")
def _rectified_grad_input(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    result: Tensor = GRAD_INPUT(dy, x, weight, stride, padding, dilation)
    return result


@torch.library.impl(_LIBRARY, "adder2d_grad_input", "CompositeExplicitAutograd")
def _grad_input(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    return reference.adder2d_grad_input(dy, x, weight, stride, padding, dilation)


@torch.library.impl(_LIBRARY, "adder2d_grad_weight", "CompositeExplicitAutograd")
def _grad_weight(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    return grad_weight.adder2d_grad_weight(dy, x, weight, stride, padding, dilation)


@torch.library.register_fake(f"{NAMESPACE}::adder2d_rectified", lib=_LIBRARY)
@torch.library.register_fake(f"{NAMESPACE}::adder2d", lib=_LIBRARY)
def _fake_adder2d(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, offset_free: bool
) -> Tensor:
    return empty_like_input(output_shape(x, weight, stride, padding, dilation), x)


@torch.library.register_fake(f"{NAMESPACE}::adder2d_rectified_grad_input", lib=_LIBRARY)
@torch.library.register_fake(f"{NAMESPACE}::adder2d_grad_input", lib=_LIBRARY)
def _fake_grad_input(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    return empty_like_input(x.shape, x)


@torch.library.register_fake(f"{NAMESPACE}::adder2d_grad_weight", lib=_LIBRARY)
def _fake_grad_weight(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    return torch.empty_like(weight)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, ctx.stride, ctx.padding, ctx.dilation, _ = inputs
    ctx.save_for_backward(x, weight)


def _backward_through(grad_input: Any) -> Any:
    """The derivative, by one of the two operators for the input's.

    Eq. 6 and Eq. 5. The offset sum|F| has no part in them: they are not the exact derivatives.
    """

    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # a second derivative would lose terms in silence
            raise NotImplementedError(
                "adder2d: expected to be differentiated once, got create_graph=True; the paper's gradients "
                "have no derivatives, so leave adder layers out of gradient penalties and Hessians."
            )
        x, weight = ctx.saved_tensors
        sizes = (ctx.stride, ctx.padding, ctx.dilation)
        dx = grad_input(dy, x, weight, *sizes) if ctx.needs_input_grad[0] else None
        dw = GRAD_WEIGHT(dy, x, weight, *sizes) if ctx.needs_input_grad[1] else None
        return dx, dw, None, None, None, None

    return backward


for _name, _grad_input_of in (("adder2d", GRAD_INPUT), ("adder2d_rectified", RECTIFIED_GRAD_INPUT)):
    torch.library.register_autograd(
        f"{NAMESPACE}::{_name}",
        _backward_through(_grad_input_of),
        setup_context=_keep_for_backward,
        lib=_LIBRARY,
    )


def _autocast_dtype(device_type: str, x: Tensor, weight: Tensor, offset_free: bool) -> torch.dtype:
    if torch.float64 in (x.dtype, weight.dtype):
        return torch.float64  # autocast never narrows what asked for float64
    # Raw Eq. 2 is a large constant plus a small signal; in 16 bits the constant's rounding drowns the signal.
    return torch.get_autocast_dtype(device_type) if offset_free else torch.float32


def _register_autocast(operator: Any, name: str, device_type: str, dispatch_key: str) -> None:
    @torch.library.impl(_LIBRARY, name, dispatch_key)
    def _cast(
        x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, offset_free: bool
    ) -> Tensor:
        dtype = _autocast_dtype(device_type, x, weight, offset_free)
        with torch.autocast(device_type, enabled=False):
            result: Tensor = operator(x.to(dtype), weight.to(dtype), stride, padding, dilation, offset_free)
        return result


for _operator, _operator_name in ((ADDER2D, "adder2d"), (RECTIFIED, "adder2d_rectified")):
    _register_autocast(_operator, _operator_name, "cpu", "AutocastCPU")
    _register_autocast(_operator, _operator_name, "cuda", "AutocastCUDA")
