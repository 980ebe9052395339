"""The optimizer that a recipe names, over the groups of a network's parameters."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch

from addertrain.optim.adder_optimizer import AdderOptimizer
from addertrain.optim.adder_sgd import AdderSGD
from addertrain.optim.layer_rate import AdaptiveLayerRate, Rule
from addertrain.optim.lion import Lion
from addertrain.optim.validation import Group
from addertrain.recipe import OptimRecipe


def build_optimizer(groups: Sequence[Group], optim: OptimRecipe) -> AdderOptimizer:
    """AdderSGD, or AdamW, Lion or Muon under `AdaptiveLayerRate`, with the recipe's settings.

    Raises:
        ValueError: the recipe's `alr` is not one that its optimizer has.
    """
    if optim.name == "sgd":
        return AdderSGD(
            groups,
            lr=optim.lr,
            momentum=optim.momentum,
            weight_decay=optim.weight_decay,
            nesterov=optim.nesterov,
            eta=optim.eta,
            alr=optim.alr,
            increase=optim.increase,
        )
    if optim.name == "muon":
        return AdaptiveLayerRate(
            groups,
            _with_momentum(torch.optim.SGD, optim),
            filter_rule=_with_momentum(torch.optim.Muon, optim),
            eta=optim.eta,
            alr=_mode(optim),
        )
    made, usual = {"adamw": (torch.optim.AdamW, 0.999), "lion": (Lion, 0.99)}[optim.name]
    betas = (optim.beta1, usual if optim.beta2 is None else optim.beta2)
    rule: Rule = partial(made, lr=optim.lr, betas=betas, weight_decay=optim.weight_decay)
    return AdaptiveLayerRate(groups, rule, eta=optim.eta, alr=_mode(optim))


def _with_momentum(made: type[torch.optim.SGD | torch.optim.Muon], optim: OptimRecipe) -> Rule:
    return partial(
        made, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov, weight_decay=optim.weight_decay
    )


def _mode(optim: OptimRecipe) -> Literal["global", "off"]:
    if optim.alr not in ("global", "off"):
        raise ValueError(
            f"optim.alr: expected global or off with optim.name: {optim.name}, got {optim.alr!r}."
        )
    return optim.alr
