"""Sums of squares of many tensors: operator, fake, and the reference behind the compiled libraries.

torch's norms add into eight float32 lanes on CPUs: that of a 25088 x 4096 layer is 1 % off, and the shards of
a layer give another norm than the unsharded layer. Here squares and sums are float64, in an order that
depends only on a tensor's size and layout.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from addertrain import libraries  # noqa: F401  it loads the kernels

_NAMESPACE = "addertrain"
_LIBRARY = torch.library.Library(_NAMESPACE, "FRAGMENT")
_LIBRARY.define("sums_of_squares(Tensor[] tensors) -> Tensor")
_PIECE = 1 << 20  # elements: 8 MiB as float64


def sums_of_squares(tensors: Sequence[Tensor]) -> Tensor:
    """sum x^2 over the elements x of each tensor: [T] in float64 on their device, without a host sync.

    Off by 1e-14 of itself at most, whatever the type, size and layout: float64 holds the square of a float32
    or of 16 bits exactly. NaN and infinity propagate; an empty tensor has 0. The same bits for any number of
    threads.

    Args:
        tensors: at least one, floating-point, all on one device.
    """
    result: Tensor = torch.ops.addertrain.sums_of_squares(list(tensors))
    return result


@torch.library.impl(_LIBRARY, "sums_of_squares", "CompositeExplicitAutograd")
def reference_sums(tensors: Sequence[Tensor]) -> Tensor:
    """`sums_of_squares` in torch's operators."""
    return torch.stack([_sum_of_squares(tensor) for tensor in tensors])


def _sum_of_squares(tensor: Tensor) -> Tensor:
    """Piece by piece: all of a large gradient in float64 would be twice its memory again."""
    pieces = tensor.reshape(-1).split(_PIECE)
    return torch.stack([piece.double().square().sum() for piece in pieces]).sum()


@torch.library.register_fake(f"{_NAMESPACE}::sums_of_squares", lib=_LIBRARY)
def _fake(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0].new_empty(len(tensors), dtype=torch.float64)
