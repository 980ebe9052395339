"""The gradients of a step where a rank has them: reduced over the ranks, accumulated, not yet used."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer

from addertrain.optim.clipping import part_norms
from addertrain.optim.shards import local


@dataclass(frozen=True)
class Gradients:
    """This rank's gradients, or its parts of them, each beside the parameter it belongs to.

    `scale` is what they are multiplied by: 1, but where an engine unscales later.
    """

    parameters: Sequence[Tensor]
    values: Sequence[Tensor]
    scale: float = 1.0

    @classmethod
    def of(cls, optimizer: Optimizer) -> "Gradients":
        """Those that stand in `p.grad`, of a DTensor this rank's part."""
        params = [param for group in optimizer.param_groups for param in group["params"]]
        present = [(param, param.grad) for param in params if param.grad is not None]
        return cls([param for param, _ in present], [local(grad) for _, grad in present])

    def norms(self) -> Tensor | None:
        """The norm of every part, [T], without a host sync; one that overflows is not finite either."""
        return part_norms(self.values) if self.values else None
