"""A step that may be given a closure, as torch's optimizers may."""

from collections.abc import Callable
from typing import overload

import torch
from torch.optim import Optimizer


class ClosureStep(Optimizer):
    """Base of the optimizers here: `step` computes a closure's gradients, if there is one, then updates."""

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update()
        return loss

    def _update(self) -> None:
        """Update every parameter that has a gradient, without autograd."""
        raise NotImplementedError
