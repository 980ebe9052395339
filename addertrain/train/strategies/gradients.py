"""The gradients of a step on a rank: reduced over the ranks and accumulated, but not yet used."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer

from addertrain.optim.clipping import part_norms
from addertrain.optim.shards import local


@dataclass(frozen=True)
class Gradients:
    """This rank's gradients or shards of them, each with its parameter.

    `scale` is their factor, which is 1 unless an engine unscales later.
    """

    parameters: Sequence[Tensor]
    values: Sequence[Tensor]
    scale: float = 1.0

    @classmethod
    def of(cls, optimizer: Optimizer) -> "Gradients":
        """The gradients in `p.grad`; of a DTensor this rank's shard."""
        params = [param for group in optimizer.param_groups for param in group["params"]]
        present = [(param, param.grad) for param in params if param.grad is not None]
        return cls([param for param, _ in present], [local(grad) for _, grad in present])

    def norms(self) -> Tensor | None:
        """The norm of every gradient or shard, [T], without a host sync; one that overflows is not finite
        either.
        """
        return part_norms(self.values) if self.values else None
