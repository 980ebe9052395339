"""An adder layer and the norm behind it with one pass less over the response, where that is faster.

The layer's kernel adds up the norm's statistics while it has the response in registers (training), or does
all that the norm, a residual and a ReLU would do (evaluation without gradients). Modules, their parameters
and their results stay those of norm(layer(x)). Where a module is watched (hooks), altered (8 bits, another
variant, ranks that share statistics), traced by torch.fx or on a CPU, norm(layer(x)) is what runs; but on
CPUs the end of a residual block (norm, sum and ReLU) is one pass in training (`ops.norm_residual`), and the
filter gradient of a layer behind a ReLU needs no sum of dY, which a training norm's gradient makes 0.
"""

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from addertrain.nn.adder import AdderConv2d
from addertrain.nn.norm import BatchNorm2d
from addertrain.nn.tracing import is_traced
from addertrain.ops import functional, fused
from addertrain.ops.norm_residual import is_fused_with


def adder_norm(layer: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """norm(layer(x)), of any layer and norm."""
    if is_traced(x):
        node: Tensor = norm(layer(x))
        return node
    pair = _fused_pair(layer, norm, x)
    if pair is None:
        y: Tensor = norm(_response(layer, norm, x))
        return y
    layer, norm = pair
    if not norm.training:
        return _evaluated(layer, norm, x, residual=None, relu=norm.relu)
    y, sums = fused.adder2d_with_sums(x, layer.weight, layer.stride, layer.padding, layer.dilation)
    return norm.of_sums(y, sums)


def adder_norm_residual(layer: nn.Module, norm: nn.Module, x: Tensor, residual: Tensor) -> Tensor:
    """relu(norm(layer(x)) + residual), of any layer and norm."""
    if is_traced(x):
        return torch.relu(norm(layer(x)) + residual)
    pair = _fused_pair(layer, norm, x)
    if pair is not None and not pair[1].training and _fits(residual, *pair, x):
        return _evaluated(*pair, x, residual=residual, relu=True)
    if pair is None and _takes_residual(norm):
        y = _response(layer, norm, x)
        return norm.with_residual(y, residual) if is_fused_with(y, residual) else (norm(y) + residual).relu()
    return torch.relu(adder_norm(layer, norm, x) + residual)


def _plain_pair(layer: nn.Module, norm: nn.Module) -> tuple[AdderConv2d, BatchNorm2d] | None:
    """Both, if neither is altered or watched: an operator may stand for their calls."""
    if type(layer) is not AdderConv2d or type(norm) is not BatchNorm2d:
        return None
    if layer.bias is not None or layer.variant is not None or _is_watched(layer) or _is_watched(norm):
        return None
    layer.was_called = True
    return layer, norm


def _fused_pair(layer: nn.Module, norm: nn.Module, x: Tensor) -> tuple[AdderConv2d, BatchNorm2d] | None:
    """Both, if one operator may stand for their calls and is faster."""
    pair = _plain_pair(layer, norm)
    if pair is None:
        return None
    layer, norm = pair
    if norm.training:
        has_operator = norm.momentum is not None
    else:
        has_operator = norm.running_mean is not None and not torch.is_grad_enabled()
    is_wide = norm.weight.dtype.itemsize >= 4  # the kernels keep a channel's numbers in float32
    if not (layer.offset_free and has_operator and is_wide):
        return None
    return pair if fused.pays(x, layer.weight, layer.stride) else None


def _response(layer: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """layer(x), without the sum of dY in its filter gradient where the norm's own gradient makes that 0."""
    pair = _plain_pair(layer, norm)
    if pair is None or not pair[1].training or not pair[0].rectified:
        y: Tensor = layer(x)
        return y
    layer, _ = pair
    return functional.adder2d(
        x, layer.weight, layer.stride, layer.padding, layer.dilation, layer.offset_free,
        rectified=True, centred=True,
    )  # fmt: skip


def _takes_residual(norm: nn.Module) -> TypeGuard[BatchNorm2d]:
    """Whether one operator may stand for a norm's call, a sum and a ReLU in training."""
    return (
        type(norm) is BatchNorm2d
        and norm.training
        and norm.momentum is not None
        and not norm.relu
        and not _is_watched(norm)
    )


def _is_watched(module: nn.Module) -> bool:
    """Whether somebody waits for the module to be called."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or _has_any_global_hook()
    )


def _fits(residual: Tensor, layer: AdderConv2d, norm: BatchNorm2d, x: Tensor) -> bool:
    """Whether the kernel can read it beside its own result, which it writes channels-last."""
    return (
        not norm.relu
        and residual.dtype == fused.response_dtype(x, layer.weight, layer.stride)
        and residual.is_contiguous(memory_format=torch.channels_last)
    )


def _evaluated(
    layer: AdderConv2d, norm: BatchNorm2d, x: Tensor, *, residual: Tensor | None, relu: bool
) -> Tensor:
    scale, shift = norm.scale_and_shift()
    return fused.adder2d_affine(
        x, layer.weight, layer.stride, layer.padding, layer.dilation,
        scale=scale, shift=shift, residual=residual, relu=relu,
    )  # fmt: skip
