"""Layers in groups: filter o sees the C / G channels of its group alone, as in a grouped convolution.

    Y[n,o] = -sum_{c,r,s} |X[n, g C/G + c] - F[o,c,r,s]|,  g = floor(o / (O/G)),  w_ocrs of (O, C/G, R, S)

No operator is told G: it is the quotient of the channels of x and of the filters. What computes one group
serves all of them, group by group, on the channels of x, dY and the response as they lie (a slice of channels
is a strided view). Compiled kernels have faster ways for many small groups, depthwise layers among them.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from addertrain.ops.layout import empty_like_input

Pass = Callable[..., Tensor]


def groups_of(x: Tensor, weight: Tensor) -> int:
    """G, of x_nchw and w_ocrs."""
    return int(x.shape[1]) // int(weight.shape[1])


def is_grouped(x: Tensor, weight: Tensor) -> bool:
    """Whether a filter sees only some of the channels."""
    return bool(x.shape[1] != weight.shape[1])


def _groups(groups: int, *tensors: tuple[Tensor, int]) -> Iterator[tuple[Tensor, ...]]:
    """For each group its part of every (tensor, axis)."""
    parts = [tensor.chunk(groups, axis) for tensor, axis in tensors]
    yield from zip(*parts, strict=True)


def response_by_group(response: Pass) -> Pass:
    """RESPONSE(x, weight, ...) of a layer without groups, for layers of any number of groups."""

    @functools.wraps(response)
    def of_all(x: Tensor, weight: Tensor, *rest: Any, **keywords: Any) -> Tensor:
        if not is_grouped(x, weight):
            return response(x, weight, *rest, **keywords)
        parts = [
            response(x_g, w_g, *rest, **keywords)
            for x_g, w_g in _groups(groups_of(x, weight), (x, 1), (weight, 0))
        ]
        shape = [x.shape[0], weight.shape[0], *parts[0].shape[2:]]
        return empty_like_input(shape, x).copy_(torch.cat(parts, 1))

    return of_all


def grad_input_by_group(grad_input: Pass) -> Pass:
    """GRAD_INPUT(dy, x, weight, ...) of a layer without groups, for layers of any number of groups."""

    @functools.wraps(grad_input)
    def of_all(dy: Tensor, x: Tensor, weight: Tensor, *rest: Any, **keywords: Any) -> Tensor:
        if not is_grouped(x, weight):
            return grad_input(dy, x, weight, *rest, **keywords)
        parts = [
            grad_input(*operands, *rest, **keywords)
            for operands in _groups(groups_of(x, weight), (dy, 1), (x, 1), (weight, 0))
        ]
        return empty_like_input(x.shape, x).copy_(torch.cat(parts, 1))

    return of_all


def grad_weight_by_group(grad_weight: Pass) -> Pass:
    """GRAD_WEIGHT(dy, x, weight, ...) of a layer without groups, for layers of any number of groups."""

    @functools.wraps(grad_weight)
    def of_all(dy: Tensor, x: Tensor, weight: Tensor, *rest: Any, **keywords: Any) -> Tensor:
        if not is_grouped(x, weight):
            return grad_weight(dy, x, weight, *rest, **keywords)
        parts = [
            grad_weight(*operands, *rest, **keywords)
            for operands in _groups(groups_of(x, weight), (dy, 1), (x, 1), (weight, 0))
        ]
        return torch.empty_like(weight).copy_(torch.cat(parts))

    return of_all
