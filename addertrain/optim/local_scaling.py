"""alr="local", the authors' behaviour: the rate is taken inside backward, before gradients are averaged.

Kept for comparison only. Each rank normalises its own gradient, micro-batch by micro-batch, so the step
depends on the number of GPUs: with uncorrelated shards its length falls as 1/sqrt(world size).
"""

import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from addertrain.optim.gradient_norms import sq_norms
from addertrain.optim.scaling import as_factors, local_rate


class LocalScaling:
    """Tensor hooks that scale each adder filter's gradient by Eq. 13 as soon as backward has made it.

    DDP starts to reduce a gradient only after the tensor hooks of its parameter ran. The hooks are removed by
    `remove`, and when the optimizer that owns them is collected: a remaining one would silently scale the
    gradients of the next optimizer.
    """

    def __init__(self, filters: Sequence[Tensor], *, eta: float, owner: object) -> None:
        self.eta = eta
        self._seen: dict[int, tuple[Tensor, Tensor]] = {}
        self._num_layers = len(filters)
        self._handles: list[RemovableHandle] = [
            filters[layer].register_hook(self._hook(layer)) for layer in range(len(filters))
        ]
        weakref.finalize(owner, _remove_all, self._handles)

    def remove(self) -> None:
        """Removes the hooks; backward then leaves the raw gradient."""
        _remove_all(self._handles)

    def seen(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Squared norms and rates of the last backward, [L] each; zeros where no hook ran."""
        zero = torch.zeros((), dtype=torch.float32, device=like.device)
        pairs = [self._seen.get(layer, (zero, zero)) for layer in range(self._num_layers)]
        self._seen.clear()
        return torch.stack([pair[0].float() for pair in pairs]), torch.stack(
            [pair[1].float() for pair in pairs]
        )

    def _hook(self, layer: int) -> Callable[[Tensor], Tensor]:
        def scale(grad: Tensor) -> Tensor:
            sq_norm = sq_norms([grad])[0]
            rate = local_rate(sq_norm, grad.numel(), self.eta)
            self._seen[layer] = (sq_norm, rate)
            return grad * as_factors(rate, grad)

        return scale


def _remove_all(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
    handles.clear()
