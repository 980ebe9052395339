"""The end of a residual block in training, norm, sum and ReLU, as one operator for CPUs.

y = relu(weight * (x - mean) / sqrt(var + eps) + bias + residual),  mean, biased var per channel over N, H, W

It makes one pass over memory instead of three for norm, sum and ReLU; in backward the residual's gradient
comes from the pass that the norm's needs anyway.
"""

from typing import Any

import torch
from torch import Tensor

from addertrain.ops.norm import Triple, reference, reference_backward
from addertrain.ops.registration import LIBRARY, NAMESPACE, register_backward, register_no_backward

LIBRARY.define(
    "batch_norm_residual_relu(Tensor x, Tensor residual, Tensor weight, Tensor bias, float eps) "
    "-> (Tensor, Tensor, Tensor)"
)
LIBRARY.define(
    "batch_norm_residual_relu_backward(Tensor dy, Tensor y, Tensor x, Tensor weight, Tensor mean, "
    "Tensor var, float eps) -> (Tensor, Tensor, Tensor, Tensor)"
)
_FORWARD = torch.ops.addertrain.batch_norm_residual_relu
_BACKWARD = torch.ops.addertrain.batch_norm_residual_relu_backward

Four = tuple[Tensor, Tensor, Tensor, Tensor]


def batch_norm_residual_relu(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, *, eps: float
) -> Triple:
    """y_nchw in the layout of `x`, and each channel's mean and biased variance (without gradients)."""
    result: Triple = _FORWARD(x, residual, weight, bias, eps)
    return result


@torch.library.impl(LIBRARY, "batch_norm_residual_relu", "CompositeExplicitAutograd")
def reference_residual(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Triple:
    """`batch_norm_residual_relu` in torch's operators."""
    y, mean, var = reference(x, weight, bias, eps, False)
    return (y + residual).clamp_min(0), mean, var


@torch.library.impl(LIBRARY, "batch_norm_residual_relu_backward", "CompositeExplicitAutograd")
def reference_residual_backward(
    dy: Tensor, y: Tensor, x: Tensor, weight: Tensor, mean: Tensor, var: Tensor, eps: float
) -> Four:
    """Its gradients dx, dresidual, dweight, dbias in torch's operators."""
    g = torch.where(y > 0, dy, torch.zeros_like(dy))
    no_bias = torch.zeros_like(weight)
    dx, dweight, dbias = reference_backward(g, x, weight, no_bias, mean, var, eps, False)
    return dx, g, dweight, dbias


@torch.library.register_fake(f"{NAMESPACE}::batch_norm_residual_relu", lib=LIBRARY)
def _fake(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Triple:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)


@torch.library.register_fake(f"{NAMESPACE}::batch_norm_residual_relu_backward", lib=LIBRARY)
def _fake_backward(
    dy: Tensor, y: Tensor, x: Tensor, weight: Tensor, mean: Tensor, var: Tensor, eps: float
) -> Four:
    return torch.empty_like(x), torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Triple) -> None:
    x, _, weight, _, ctx.eps = inputs
    y, mean, var = output
    ctx.save_for_backward(y, x, weight, mean, var)
    ctx.mark_non_differentiable(mean, var)


def _backward(ctx: Any, dy: Tensor, _dmean: Tensor, _dvar: Tensor) -> tuple[Tensor | None, ...]:
    dx, dresidual, dweight, dbias = _BACKWARD(dy, *ctx.saved_tensors, ctx.eps)
    return dx, dresidual, dweight, dbias, None


register_backward("batch_norm_residual_relu", _backward, _keep_for_backward)
register_no_backward("batch_norm_residual_relu_backward")
