"""Training-mode batch normalisation with ReLU as one operator, fused where a compiled library has it.

y = relu(weight * (x - mean) / sqrt(var + eps) + bias),  mean and biased var per channel over N, H, W

CPUs take both from x. GPUs take the statistics from sums that came with x (`adder2d_with_sums`).
"""

from typing import Any

import torch
from torch import Tensor

from addertrain.ops.derivatives import refuse_second_derivative
from addertrain.ops.fusion import norm_pays
from addertrain.ops.registration import LIBRARY, NAMESPACE, register_backward, register_no_backward

LIBRARY.define(
    "batch_norm_relu(Tensor x, Tensor weight, Tensor bias, float eps, bool relu) -> (Tensor, Tensor, Tensor)"
)
LIBRARY.define(
    "batch_norm_relu_of_sums(Tensor x, Tensor sums, Tensor weight, Tensor bias, float eps, bool relu) "
    "-> (Tensor, Tensor, Tensor)"
)
LIBRARY.define(
    "batch_norm_relu_backward(Tensor dy, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor var, "
    "float eps, bool relu) -> (Tensor, Tensor, Tensor)"
)
_BATCH_NORM_RELU = torch.ops.addertrain.batch_norm_relu
_OF_SUMS = torch.ops.addertrain.batch_norm_relu_of_sums
_BACKWARD = torch.ops.addertrain.batch_norm_relu_backward

Triple = tuple[Tensor, Tensor, Tensor]


def batch_norm_relu(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float, relu: bool) -> Triple:
    """y_nchw in the layout of `x`, and each channel's mean and biased variance (without gradients)."""
    result: Triple = _BATCH_NORM_RELU(x, weight, bias, eps, relu)
    return result


def batch_norm_relu_of_sums(
    x: Tensor, sums: Tensor, weight: Tensor, bias: Tensor, *, eps: float, relu: bool
) -> Triple:
    """As `batch_norm_relu`, with sums [2, C] in float64 of x and of x^2 over N, H, W at hand.

    The gradient is the whole norm's, statistics included: `sums` gets none of its own. On GPUs x goes through
    channels-last, and weight and bias are float32 whatever x is.
    """
    result: Triple = _OF_SUMS(x, sums, weight, bias, eps, relu)
    return result


@torch.library.impl(LIBRARY, "batch_norm_relu", "CompositeExplicitAutograd")
def reference(x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Triple:
    """`batch_norm_relu` in torch's operators."""
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    y = _normalise(x, weight, bias, mean, var, eps)
    return (y.clamp_min(0) if relu else y), mean, var


@torch.library.impl(LIBRARY, "batch_norm_relu_of_sums", "CompositeExplicitAutograd")
def reference_of_sums(
    x: Tensor, sums: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool
) -> Triple:
    """`batch_norm_relu_of_sums` in torch's operators."""
    mean, square = sums / (x.numel() // x.shape[1])
    var = (square - mean.square()).clamp_min(0).to(weight.dtype)
    mean = mean.to(weight.dtype)
    y = _normalise(x, weight, bias, mean, var, eps).to(x.dtype)
    return (y.clamp_min(0) if relu else y), mean, var


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def _normalise(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    scale = weight * (var + eps).rsqrt()
    return (x - _per_channel(mean)) * _per_channel(scale) + _per_channel(bias)


@torch.library.impl(LIBRARY, "batch_norm_relu_backward", "CompositeExplicitAutograd")
def reference_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float, relu: bool
) -> Triple:
    """Its gradients dx, dweight, dbias in torch's operators."""
    y = _normalise(x, weight, bias, mean, var, eps)
    g = torch.where(y > 0, dy, torch.zeros_like(dy)) if relu else dy
    inverse_std = (var + eps).rsqrt()
    x_hat = (x - _per_channel(mean)) * _per_channel(inverse_std)
    dbias, dweight = g.sum((0, 2, 3)), (g * x_hat).sum((0, 2, 3))
    count = x.numel() // x.shape[1]
    dx = g - _per_channel(dbias / count) - x_hat * _per_channel(dweight / count)
    return (dx * _per_channel(weight * inverse_std)).to(x.dtype), dweight, dbias


@torch.library.register_fake(f"{NAMESPACE}::batch_norm_relu", lib=LIBRARY)
def _fake(x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Triple:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)


@torch.library.register_fake(f"{NAMESPACE}::batch_norm_relu_of_sums", lib=LIBRARY)
def _fake_of_sums(x: Tensor, sums: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Triple:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)


@torch.library.register_fake(f"{NAMESPACE}::batch_norm_relu_backward", lib=LIBRARY)
def _fake_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float, relu: bool
) -> Triple:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Triple) -> None:
    x, *sums, weight, bias, ctx.eps, ctx.relu = inputs
    _, mean, var = output
    ctx.has_sums = bool(sums)
    ctx.save_for_backward(x, weight, bias, mean, var)
    ctx.mark_non_differentiable(mean, var)


def _backward(ctx: Any, dy: Tensor, _dmean: Tensor, _dvar: Tensor) -> tuple[Tensor | None, ...]:
    x = ctx.saved_tensors[0]
    # CPUs have it for what their forward takes; sums come with any x.
    is_reference = x.device.type == "cpu" and not norm_pays(x)
    if is_reference and torch.is_grad_enabled():  # where the operator would refuse
        refuse_second_derivative("batch_norm_relu_backward")
    backward: Any = reference_backward if is_reference else _BACKWARD
    dx, dweight, dbias = backward(dy, *ctx.saved_tensors, ctx.eps, ctx.relu)
    return dx, *([None] if ctx.has_sums else []), dweight, dbias, None, None


for _name in ("batch_norm_relu", "batch_norm_relu_of_sums"):
    register_backward(_name, _backward, _keep_for_backward)
register_no_backward("batch_norm_relu_backward")
