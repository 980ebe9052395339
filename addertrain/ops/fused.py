"""Responses fused with what follows: a norm's sums in training; norm, residual and ReLU in evaluation.

On GPUs each is one pass over the result (kernels/device/epilogue.h); everywhere else the reference here
serves. Both take the offset-free response, which is what goes into norms; `ops.fusion` says where they are
faster, and `addertrain.nn.adder_norm` calls them.
"""

from typing import Any

import torch
from torch import Tensor

from addertrain.ops import schemas
from addertrain.ops.flops import count_response
from addertrain.ops.geometry import Sizes, check_arguments, output_shape
from addertrain.ops.layout import empty_like_input
from addertrain.ops.precision import is_autocast
from addertrain.ops.registration import (
    LIBRARY,
    NAMESPACE,
    SIZES,
    register_autocast,
    register_backward,
)

LIBRARY.define(f"adder2d_with_sums(Tensor x, Tensor weight, {SIZES}) -> (Tensor, Tensor)")
LIBRARY.define(
    f"adder2d_affine(Tensor x, Tensor weight, {SIZES}, Tensor scale, Tensor shift, "
    "Tensor? residual, bool relu) -> Tensor"
)
WITH_SUMS = torch.ops.addertrain.adder2d_with_sums
AFFINE = torch.ops.addertrain.adder2d_affine


def adder2d_with_sums(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, *, groups: int = 1
) -> tuple[Tensor, Tensor]:
    """The offset-free response y_nopq, and sums [2, O] of y and of y^2 per channel, float64.

    mean = sums[0] / n and biased var = sums[1] / n - mean^2 over n = N*P*Q values; sums of several ranks add
    up. On GPUs they come from the float32 sums of y, not from what 16 bits keep of them, always in one order.
    They carry no gradient: a norm's backward knows its own.

    Raises:
        RuntimeError: on a GPU, for float64, for groups and for layers that no tile holds (docs/cuda.md).
    """
    check_arguments(
        x, weight, stride, padding, dilation, groups=groups, is_autocast=is_autocast(x.device.type)
    )
    y, sums = WITH_SUMS(x, weight, stride, padding, dilation)
    return y, sums


def adder2d_affine(
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    *,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None = None,
    relu: bool = False,
    groups: int = 1,
) -> Tensor:
    """relu(y * scale + shift + residual) of the offset-free response y, for evaluation: it has no gradient.

    `scale` and `shift` are [O] in float32: a norm's weight / sqrt(var + eps) and bias - mean * scale.
    `residual` has the shape, dtype and layout of the result.

    Raises:
        RuntimeError: on a GPU, for float64, for groups and for layers that no tile holds (docs/cuda.md).
    """
    check_arguments(
        x, weight, stride, padding, dilation, groups=groups, is_autocast=is_autocast(x.device.type)
    )
    result: Tensor = AFFINE(x, weight, stride, padding, dilation, scale, shift, residual, relu)
    return result


@torch.library.impl(LIBRARY, "adder2d_with_sums", "CompositeExplicitAutograd")
def reference_with_sums(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> tuple[Tensor, Tensor]:
    """`adder2d_with_sums` in torch's operators."""
    y = schemas.ADDER2D(x, weight, stride, padding, dilation, True)
    wide = y.double()
    return y, torch.stack((wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3))))


@torch.library.impl(LIBRARY, "adder2d_affine", "CompositeExplicitAutograd")
def reference_affine(
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    relu: bool,
) -> Tensor:
    """`adder2d_affine` in torch's operators."""
    response: Tensor = schemas.ADDER2D(x, weight, stride, padding, dilation, True)
    y = response * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
    if residual is not None:
        y = y + residual
    return (y.clamp_min(0) if relu else y).to(x.dtype)


@torch.library.register_fake(f"{NAMESPACE}::adder2d_with_sums", lib=LIBRARY)
def _fake_with_sums(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> tuple[Tensor, Tensor]:
    y = empty_like_input(output_shape(x, weight, stride, padding, dilation), x)
    return y, torch.empty(2, weight.shape[0], dtype=torch.float64, device=x.device)


@torch.library.register_fake(f"{NAMESPACE}::adder2d_affine", lib=LIBRARY)
def _fake_affine(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, *_: Any
) -> Tensor:
    return empty_like_input(output_shape(x, weight, stride, padding, dilation), x)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, ctx.stride, ctx.padding, ctx.dilation = inputs
    ctx.save_for_backward(x, weight)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, dy: Tensor, _dsums: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    sizes = (ctx.stride, ctx.padding, ctx.dilation)
    dx = schemas.GRAD_INPUT(dy, x, weight, *sizes) if ctx.needs_input_grad[0] else None
    dw = schemas.GRAD_WEIGHT(dy, x, weight, *sizes) if ctx.needs_input_grad[1] else None
    return dx, dw, None, None, None


register_backward("adder2d_with_sums", _backward, _keep_for_backward)


def _no_backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    raise NotImplementedError(
        "adder2d_affine: expected no backward pass, got one; use adder2d and a separate norm."
    )


register_backward("adder2d_affine", _no_backward)


def _autocast_dtype(
    device_type: str, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, *_: object
) -> torch.dtype:
    return schemas.autocast_dtype(device_type, x, weight, stride, padding, dilation, True)


register_autocast("adder2d_with_sums", WITH_SUMS, _autocast_dtype)
register_autocast("adder2d_affine", AFFINE, _autocast_dtype)
count_response(WITH_SUMS)
count_response(AFFINE)
