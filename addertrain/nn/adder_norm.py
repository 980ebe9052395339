"""An adder layer, the norm behind it, a residual's sum and a ReLU in fewer passes, where that is faster.

Modules, their parameters and their results stay those of their own calls. Where a module is watched (hooks),
altered (8 bits, another variant, ranks that share statistics) or traced by torch.fx, its own call is what
runs; elsewhere `ops.fusion` says which operators do.
"""

from typing import TypeGuard

import torch
from torch import Tensor, nn

from addertrain.nn.adder import AdderConv2d
from addertrain.nn.norm import BatchNorm2d
from addertrain.nn.tracing import is_traced, is_watched
from addertrain.ops import functional, fused, fusion


def adder_norm(layer: nn.Module, norm: nn.Module, x: Tensor, *, relu: bool = False) -> Tensor:
    """norm(layer(x)), of any layer and norm; with `relu`, a ReLU of that."""
    if is_traced(x) or (pair := _pair(layer, norm)) is None:
        return norm_relu(norm, layer(x)) if relu else _of(norm, layer(x))
    if pair[1].then:
        y = pair[1].activated(_normed(*pair, x, relu=False))
        return torch.relu(y) if relu else y
    return _normed(*pair, x, relu=relu)


def _normed(layer: AdderConv2d, norm: BatchNorm2d, x: Tensor, *, relu: bool) -> Tensor:
    """What the norm makes of the layer's response before `norm.then`, by the fastest path."""
    path = fusion.response_path(_settings(layer, norm), x)
    if path == "affine":
        return _evaluated(layer, norm, x, residual=None, relu=relu or norm.relu)
    if path == "with_sums":
        return _trained(layer, norm, x, relu=relu or norm.relu)
    return norm.normalised(_response(layer, x, path), relu=relu or norm.relu)


def adder_norm_residual(layer: nn.Module, norm: nn.Module, x: Tensor, residual: Tensor) -> Tensor:
    """relu(norm(layer(x)) + residual), of any layer and norm."""
    if is_traced(x) or (pair := _pair(layer, norm)) is None:
        return norm_residual_relu(norm, layer(x), residual)
    layer, own_norm = pair
    if own_norm.then:
        return torch.relu(adder_norm(layer, own_norm, x) + residual)
    path = fusion.response_path(_settings(layer, own_norm), x)
    if path == "affine":
        is_read = not own_norm.relu and fusion.affine_reads(residual, x, layer.weight, layer.stride)
        if is_read:
            return _evaluated(*pair, x, residual=residual, relu=True)
        return torch.relu(_evaluated(*pair, x, residual=None, relu=own_norm.relu) + residual)
    if path == "with_sums":
        return torch.relu(_trained(*pair, x, relu=own_norm.relu) + residual)
    return norm_residual_relu(norm, _response(layer, x, path), residual)


def norm_relu(norm: nn.Module, y: Tensor) -> Tensor:
    """relu(norm(y)), of any norm: one pass where our own norm has one."""
    if not is_traced(y) and _is_our_call(norm) and not is_watched(norm):
        return norm.normalised(y, relu=True)
    return torch.relu(norm(y))


def _is_our_call(norm: nn.Module) -> TypeGuard[BatchNorm2d]:
    return isinstance(norm, BatchNorm2d) and type(norm).forward is BatchNorm2d.forward and not norm.then


def norm_residual_relu(norm: nn.Module, y: Tensor, residual: Tensor) -> Tensor:
    """relu(norm(y) + residual), of any norm: one pass where our own norm has one."""
    if not is_traced(y) and _takes_residual(norm) and fusion.end_path(y, residual) == "residual":
        return norm.with_residual(y, residual)
    return torch.relu(_of(norm, y) + residual)


def _of(norm: nn.Module, y: Tensor) -> Tensor:
    normalised: Tensor = norm(y)
    return normalised


def _pair(layer: nn.Module, norm: nn.Module) -> tuple[AdderConv2d, BatchNorm2d] | None:
    """Both, if neither is altered or watched: an operator may stand for their calls."""
    if type(layer) is not AdderConv2d or type(norm) is not BatchNorm2d:
        return None
    if layer.bias is not None or layer.variant is not None or layer.edges is not None:
        return None
    if is_watched(layer, norm):
        return None
    layer.was_called = True
    return layer, norm


def _settings(layer: AdderConv2d, norm: BatchNorm2d) -> fusion.Pair:
    has_statistics = norm.momentum is not None if norm.training else norm.running_mean is not None
    return fusion.Pair(
        weight=layer.weight,
        stride=layer.stride,
        offset_free=layer.offset_free,
        rectified=layer.rectified,
        trains=norm.training,
        has_statistics=has_statistics,
        norm_dtype=norm.weight.dtype,
    )


def _response(layer: AdderConv2d, x: Tensor, path: fusion.Path) -> Tensor:
    return functional.adder2d(
        x, layer.weight, layer.stride, layer.padding, layer.dilation, layer.offset_free,
        rectified=layer.rectified, centred=path == "centred", groups=layer.groups,
    )  # fmt: skip


def _takes_residual(norm: nn.Module) -> TypeGuard[BatchNorm2d]:
    """Whether one operator may stand for a norm's call, a sum and a ReLU in training."""
    return (
        type(norm) is BatchNorm2d
        and norm.training
        and norm.momentum is not None
        and not norm.relu
        and not norm.then
        and not is_watched(norm)
    )


def _trained(layer: AdderConv2d, norm: BatchNorm2d, x: Tensor, *, relu: bool) -> Tensor:
    y, sums = fused.adder2d_with_sums(x, layer.weight, layer.stride, layer.padding, layer.dilation)
    return norm.of_sums(y, sums, relu=relu)


def _evaluated(
    layer: AdderConv2d, norm: BatchNorm2d, x: Tensor, *, residual: Tensor | None, relu: bool
) -> Tensor:
    scale, shift = norm.scale_and_shift()
    return fused.adder2d_affine(
        x, layer.weight, layer.stride, layer.padding, layer.dilation,
        scale=scale, shift=shift, residual=residual, relu=relu,
    )  # fmt: skip
