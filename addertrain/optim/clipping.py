"""Clipping by the global norm of all gradients except those of adder filters.

ALR gives every adder layer's gradient a fixed length, so clipping it would only distort the norm of all
others: ResNet-50's scaled adder gradient alone has a norm of 968.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from addertrain.optim.shards import summed
from addertrain.optim.squares import sums_of_squares


def clip_factor(norm: Tensor, max_norm: float) -> Tensor:
    """min(1, max_norm / norm): the factor that limits a norm to `max_norm`; NaN stays NaN."""
    return (max_norm / norm).clamp(max=1.0)


@torch.no_grad()
def clip_others_(groups: Iterable[Mapping[str, Any]], max_norm: float) -> Tensor | None:
    """Scales the gradients of all groups without adder=True in place; no host sync.

    Returns:
        Their norm before, on their device; None if there is no gradient.
    """
    params = [param for group in groups if not group["adder"] for param in group["params"]]
    grads = [param.grad for param in params if param.grad is not None]
    if not grads:
        return None
    norm = _total(sums_of_squares(grads), grads[0])
    torch._foreach_mul_(grads, clip_factor(norm, max_norm))
    return norm


@torch.no_grad()
def clip_parts_(
    parts: Sequence[Tensor], max_norm: float, *, group: dist.ProcessGroup, like: Tensor
) -> Tensor:
    """Scales this rank's shards of gradients that are sharded over `group`, by their norm over the group.
    Every rank of the group has to call it, also ranks without a shard; `like` has the gradients' device and
    type. One all-reduce of one number, no host sync.

    Returns:
        The norm before.
    """
    norm = _total(summed(sums_of_squares(parts or [like.new_empty(0)]).sum(), group), like)
    if parts:
        torch._foreach_mul_(list(parts), clip_factor(norm, max_norm))
    return norm


def part_norms(grads: Sequence[Tensor]) -> Tensor:
    """The norm of each of at least one gradient, [T], in their type or float32, without a host sync."""
    return sums_of_squares(grads).sqrt().to(_wide(grads[0]))


def _total(sq_norms: Tensor, like: Tensor) -> Tensor:
    return sq_norms.sum().sqrt().to(_wide(like))


def _wide(grad: Tensor) -> torch.dtype:
    """A norm of more than 65504 is none in float16, and three digits of one are few."""
    return torch.promote_types(grad.dtype, torch.float32)
