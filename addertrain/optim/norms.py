"""Squared norms of gradients, one number a layer; knows no learning rate.

Here every layer's gradient is whole on every rank: one process, or DDP, which leaves the average behind.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def sq_norms(grads: Sequence[Tensor | None]) -> Tensor:
    """||g_l||_2^2 of every gradient, as one vector [L] on the gradients' device, without a host sync.

    Accumulates 16-bit gradients in fp32 (fp16 overflows at a norm of 256) and float64 ones in float64.
    A layer without a gradient counts as 0.

    Raises:
        ValueError: if no layer has a gradient.
    """
    present = [grad for grad in grads if grad is not None]
    if not present:
        raise ValueError("sq_norms: expected at least one gradient, got none; call backward before step.")
    dtype = torch.float64 if present[0].dtype == torch.float64 else torch.float32
    norms = iter(torch._foreach_norm(present, 2, dtype=dtype))
    zero = torch.zeros((), dtype=dtype, device=present[0].device)
    norm = torch.stack([zero if grad is None else next(norms) for grad in grads])
    return norm * norm
