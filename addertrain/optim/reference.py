"""The optimizer written out parameter by parameter in the paper's letters: the oracle of AdderSGD's tests.

    dF_l = gamma * alpha_l * g_l,    alpha_l = eta * sqrt(k) / ||g_l||_2        (Chen et al. 2020, Eq. 12, 13)

alpha_l scales the raw gradient; then weight decay is added; then momentum; then gamma (their code's order).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from addertrain.optim.scaling import AlrMode


def alpha(g: Tensor, *, alr: AlrMode, eta: float, increase: float) -> float:
    """alpha_l of one layer: Eq. 13, or 1, or the constant of the ILR ablation; 0 for a gradient of zero."""
    if alr == "off":
        return 1.0
    if alr == "increased":
        return increase
    k = g.numel()
    norm = math.sqrt(sum(float(element) ** 2 for element in g.flatten().double()))
    return eta * math.sqrt(k) / norm if norm > 0 else 0.0


class ReferenceAdderSGD:
    """One process, slow and obvious; takes the filters of adder layers and the other parameters as two lists.

    alr="local" is Eq. 13 too: with one process and no accumulation the two are the same rule.
    """

    def __init__(
        self,
        filters: Sequence[Tensor],
        others: Sequence[Tensor],
        *,
        gamma: float,
        mu: float,
        decay: float,
        nesterov: bool,
        eta: float,
        alr: AlrMode,
        increase: float = 100.0,
    ) -> None:
        self.filters, self.others = list(filters), list(others)
        self.gamma, self.mu, self.decay, self.nesterov = gamma, mu, decay, nesterov
        self.eta, self.alr, self.increase = eta, alr, increase
        self.momentum: dict[Tensor, Tensor] = {}

    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        with torch.no_grad():
            for F in self.filters:
                if F.grad is not None:
                    self._update(
                        F, alpha(F.grad, alr=self.alr, eta=self.eta, increase=self.increase) * F.grad
                    )
            for p in self.others:
                if p.grad is not None:
                    self._update(p, p.grad)

    def _update(self, p: Tensor, g: Tensor) -> None:
        g = g + self.decay * p
        if self.mu > 0:
            m = self.mu * self.momentum.get(p, torch.zeros_like(p)) + g
            self.momentum[p] = m
            g = g + self.mu * m if self.nesterov else m
        p.sub_(self.gamma * g)
