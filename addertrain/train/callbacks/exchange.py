"""Exchanging the contents of tensors, for evaluations with other weights or statistics than the live ones."""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def exchange(live: Sequence[Tensor], kept: Sequence[Tensor]) -> None:
    """Gives each tensor of `live` the contents of its partner in `kept`, and the other way round."""
    if live:
        between = [tensor.clone() for tensor in live]
        torch._foreach_copy_(list(live), list(kept))
        torch._foreach_copy_(list(kept), between)
