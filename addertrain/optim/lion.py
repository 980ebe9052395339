"""Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms"), which torch does not have.

u = sign(beta_1 m + (1 - beta_1) g);    w <- (1 - lr lambda) w - lr u;    m <- beta_2 m + (1 - beta_2) g
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from addertrain.optim.closure_step import ClosureStep


class Lion(ClosureStep):
    """Every element moves by lr, whatever its gradient's size; with decoupled weight decay.

    Args:
        params: tensors or groups of them; sharded ones (FSDP2, ZeRO) step as unsharded ones do.
        lr: length of every element's step, about a tenth of AdamW's.
        betas: beta_1 of the step, beta_2 of the momentum.

    Raises:
        ValueError: a rate or decay below 0, or a beta outside 0 to below 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        if not lr >= 0 or not weight_decay >= 0:
            raise ValueError(f"Lion: expected lr and weight_decay >= 0, got {lr} and {weight_decay}.")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"Lion: expected betas from 0 to below 1, got {tuple(betas)}.")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def _update(self) -> None:
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if not params:
                continue
            grads: list[Tensor] = [param.grad for param in params]
            for param in params:
                if "momentum_buffer" not in self.state[param]:
                    self.state[param]["momentum_buffer"] = torch.zeros_like(param)
            momenta: list[Tensor] = [self.state[param]["momentum_buffer"] for param in params]
            beta1, beta2 = group["betas"]
            updates = torch._foreach_lerp(momenta, grads, 1 - beta1)
            torch._foreach_sign_(updates)
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, updates, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, grads, 1 - beta2)
