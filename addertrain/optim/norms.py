"""Squared norms of gradients, one number a layer; knows no learning rate.

    ||g_l||^2 = sum over ranks of the sum of squares of this rank's slice of g_l

One all-reduce of the vector [L] where gradients are sharded; none where every rank holds them whole.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from addertrain.optim.shards import summed


def sq_norms(
    grads: Sequence[Tensor | None], *, like: Tensor | None = None, groups: Sequence[dist.ProcessGroup] = ()
) -> Tensor:
    """||g_l||_2^2 of every gradient, as one vector [L] on the gradients' device, without a host sync.

    Accumulates 16-bit gradients in fp32 (fp16 overflows at a norm of 256) and float64 ones in float64.
    A layer without a gradient counts as 0.

    Args:
        grads: this rank's slice of every layer's gradient; None where it holds none.
        like: a tensor of the gradients' dtype and device, for ranks that hold no slice at all.
        groups: processes over which the layers are spread; every rank of them has to call this.

    Raises:
        ValueError: if no layer has a gradient and `like` does not say what a zero looks like.
    """
    present = [grad for grad in grads if grad is not None]
    like = present[0] if like is None and present else like
    if like is None:
        raise ValueError("sq_norms: expected at least one gradient, got none; call backward before step.")
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    norms = iter(torch._foreach_norm(present, 2, dtype=dtype) if present else ())
    zero = torch.zeros((), dtype=dtype, device=like.device)
    norm = torch.stack([zero if grad is None else next(norms) for grad in grads])
    sq_norm = norm * norm
    for group in groups:
        sq_norm = summed(sq_norm, group)
    return sq_norm
