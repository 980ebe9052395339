"""One SGD update of a list of tensors, in place: g += wd * p; m = mu * m + g; p -= lr * (g + mu * m).

Without Nesterov's form the last is p -= lr * m. Knows neither layers nor shards.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_CACHED_ELEMENTS = 1 << 17  # 512 KiB of fp32: parameter, gradient and momentum together fit a core's L2


def descend(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    buffers: Sequence[Tensor],
    group: Mapping[str, Any],
    *,
    owns_grads: bool,
) -> None:
    """Update `params` and `buffers` (momentum, empty without) by the settings of `group`.

    With `owns_grads` the gradients may be overwritten.
    """
    if params and params[0].device.type == "cpu":
        # On a GPU one launch for all is what counts; a CPU gains by passing a tensor while it is cached.
        for part in _parts(params):
            _descend(params[part], grads[part], buffers[part], group, owns_grads=owns_grads)
    else:
        _descend(params, grads, buffers, group, owns_grads=owns_grads)


def _parts(params: Sequence[Tensor]) -> Iterator[slice]:
    """Runs of tensors that together have about as many elements as a cache holds."""
    start, elements = 0, 0
    for index, param in enumerate(params):
        elements += param.numel()
        if elements >= _CACHED_ELEMENTS or index + 1 == len(params):
            yield slice(start, index + 1)
            start, elements = index + 1, 0


def _descend(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    buffers: Sequence[Tensor],
    group: Mapping[str, Any],
    *,
    owns_grads: bool,
) -> None:
    params, grads, buffers = list(params), list(grads), list(buffers)
    if group["weight_decay"] != 0:
        if owns_grads:
            torch._foreach_add_(grads, params, alpha=group["weight_decay"])
        else:
            grads, owns_grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"])), True
    if group["momentum"] != 0:
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, grads)
        if not group["nesterov"]:
            grads = buffers
        elif owns_grads:
            torch._foreach_add_(grads, buffers, alpha=group["momentum"])
        else:
            grads = list(torch._foreach_add(grads, buffers, alpha=group["momentum"]))
    torch._foreach_add_(params, grads, alpha=-group["lr"])
