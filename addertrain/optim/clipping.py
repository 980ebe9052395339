"""Clipping by the global norm of all gradients but the adder filters'.

ALR gives every adder layer a gradient of one length whatever comes in, so clipping it would do nothing but
distort the norm of all others: ResNet-50's scaled adder gradient alone has a norm of 968.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def clip_factor(norm: Tensor, max_norm: float) -> Tensor:
    """min(1, max_norm / norm): what takes a gradient to a norm of at most `max_norm`; NaN stays NaN."""
    return (max_norm / norm).clamp(max=1.0)


@torch.no_grad()
def clip_others_(groups: Iterable[Mapping[str, Any]], max_norm: float) -> Tensor | None:
    """Scales the gradients of all groups without adder=True in place; no host sync.

    Returns:
        Their norm before, on their device; None where there is no gradient.
    """
    params = [param for group in groups if not group["adder"] for param in group["params"]]
    grads = [param.grad for param in params if param.grad is not None]
    if not grads:
        return None
    # In float32 whatever the gradients' type: a norm of 256 overflows float16 when squared.
    dtype = torch.promote_types(grads[0].dtype, torch.float32)
    norm = torch.stack(torch._foreach_norm(grads, 2, dtype=dtype)).norm()
    torch._foreach_mul_(grads, clip_factor(norm, max_norm))
    return norm
