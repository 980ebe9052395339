"""Squared norms of gradients, one number per layer; knows no learning rate.

    ||g_l||^2 = sum over ranks of the sum of squares of this rank's slice of g_l

One all-reduce of the vector [L] if gradients are sharded; none if every rank holds them unsharded.
"""

from collections.abc import Sequence

import torch.distributed as dist
from torch import Tensor

from addertrain.optim.shards import summed
from addertrain.optim.squares import sums_of_squares


def sq_norms(
    grads: Sequence[Tensor | None], *, like: Tensor | None = None, groups: Sequence[dist.ProcessGroup] = ()
) -> Tensor:
    """||g_l||_2^2 of every gradient, as one vector [L] in float64 on their device, without a host sync.

    In float64 whatever the gradients' type, over the ranks too: the norm of a layer is the same to 1e-14,
    unsharded or sharded in any way. A layer without a gradient counts as 0.

    Args:
        grads: this rank's slice of every layer's gradient; None where it holds none.
        like: a tensor on the gradients' device, for ranks that hold no slice at all.
        groups: processes over which the layers are spread; every rank of them has to call this.

    Raises:
        ValueError: if no layer has a gradient and `like` does not say where a zero lies.
    """
    like = next((grad for grad in grads if grad is not None), like)
    if like is None:
        raise ValueError("sq_norms: expected at least one gradient, got none; call backward before step.")
    nothing = like.new_empty(0)
    sq_norm = sums_of_squares([nothing if grad is None else grad for grad in grads])
    for group in groups:
        sq_norm = summed(sq_norm, group)
    return sq_norm
