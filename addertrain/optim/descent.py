"""One SGD update of a list of tensors, in place: g += wd * p; m = mu * m + g; p -= lr * (g + mu * m).

Without Nesterov's form the last is p -= lr * m. Knows neither layers nor shards. On a GPU torch's fused
kernel does it in one pass, and changes nothing if a flag on the device says so; a CPU reads the flag.
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
    is_sound: Tensor | None = None,
) -> None:
    """Update `params` and `buffers` (momentum, empty without) by the settings of `group`.

    With `owns_grads` the gradients may be overwritten. If `is_sound` (0-dim bool) is false, nothing changes.
    """
    if params and params[0].device.type != "cpu":
        # One launch for all is what counts on a GPU, and that its host need not wait for the flag.
        descend_fused(params, grads, buffers, group, is_sound=is_sound)
    elif is_sound is None or is_sound:
        # A CPU gains by passing a tensor while it is cached.
        for part in _parts(params):
            _descend(params[part], grads[part], buffers[part], group, owns_grads=owns_grads)


def descend_fused(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    buffers: Sequence[Tensor],
    group: Mapping[str, Any],
    *,
    is_sound: Tensor | None,
) -> None:
    """`descend` by torch's own kernel, which returns at once if `found_inf` is 1; `grads` do not change."""
    found_inf = None if is_sound is None else (~is_sound).float()
    for dtype in dict.fromkeys(param.dtype for param in params):  # the kernel takes one at a time
        chosen = [index for index, param in enumerate(params) if param.dtype == dtype]
        torch._fused_sgd_(
            [params[index] for index in chosen],
            [grads[index] for index in chosen],
            [buffers[index] for index in chosen] if buffers else [],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0.0,
            nesterov=group["nesterov"],
            maximize=False,
            is_first_step=False,  # the momentum begins as zeros
            found_inf=found_inf,
        )


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
