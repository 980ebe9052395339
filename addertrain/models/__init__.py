"""Networks by name, each built from adder layers or as its convolutional twin."""

import difflib
from collections.abc import Callable

from torch import nn

from addertrain.models.lenet import Kind, LeNet5BN

MODELS: dict[str, Callable[..., nn.Module]] = {"lenet5bn": LeNet5BN}

__all__ = ["MODELS", "Kind", "LeNet5BN", "build_model"]


def build_model(name: str, *, kind: Kind, num_classes: int) -> nn.Module:
    """The network called `name` in MODELS, freshly initialised from torch's random state.

    Raises:
        ValueError: for an unknown name or kind.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the known ones are {', '.join(MODELS)}."
        raise ValueError(f"build_model: expected the name of a model, got {name!r}; {hint}")
    return MODELS[name](num_classes=num_classes, kind=kind)
