"""The optimizer that a recipe names, over the groups of a network's parameters."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

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
    rule, filter_rule = _rules(optim)
    return AdaptiveLayerRate(groups, rule, filter_rule=filter_rule, eta=optim.eta, alr=_mode(optim))


def _rules(optim: OptimRecipe) -> tuple[Rule, Rule | None]:
    """Of all layers, and of adder filters where theirs differs."""
    settings: dict[str, Any] = {"lr": optim.lr, "weight_decay": optim.weight_decay}
    if optim.name == "muon":
        settings |= {"momentum": optim.momentum, "nesterov": optim.nesterov}
        return partial(torch.optim.SGD, **settings), partial(torch.optim.Muon, **settings)
    made, usual = {"adamw": (torch.optim.AdamW, 0.999), "lion": (Lion, 0.99)}[optim.name]
    betas = (optim.beta1, usual if optim.beta2 is None else optim.beta2)
    return partial(made, betas=betas, **settings), None


def _mode(optim: OptimRecipe) -> Literal["global", "off"]:
    if optim.alr not in ("global", "off"):
        raise ValueError(
            f"optim.alr: expected global or off with optim.name: {optim.name}, got {optim.alr!r}."
        )
    return optim.alr
