"""Networks by name, each built from adder layers, as its convolutional twin, or from binary layers."""

import difflib
from collections.abc import Callable

from torch import nn

from addertrain.models.layers import Head, Kind
from addertrain.models.lenet import LeNet5BN, LeNetPlusPlus
from addertrain.models.operations import (
    LayerCount,
    OperationCount,
    count_operations,
    energy_joules,
    via_nano_cycles,
)
from addertrain.models.resnet import ResNet, resnet8, resnet18, resnet20, resnet32, resnet50, resnet101
from addertrain.models.vgg import VGGSmall

WITHOUT_HEADS: dict[str, Callable[..., nn.Module]] = {"lenet5bn": LeNet5BN, "lenet++": LeNetPlusPlus}
"""Networks whose last layer is of their kind as well."""

MODELS: dict[str, Callable[..., nn.Module]] = WITHOUT_HEADS | {
    "vgg_small": VGGSmall,
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "resnet101": resnet101,
}

__all__ = [
    "MODELS",
    "Head",
    "Kind",
    "LayerCount",
    "LeNet5BN",
    "LeNetPlusPlus",
    "OperationCount",
    "ResNet",
    "VGGSmall",
    "build_model",
    "count_operations",
    "energy_joules",
    "via_nano_cycles",
]


def build_model(name: str, *, kind: Kind, num_classes: int, head: Head = "norm") -> nn.Module:
    """The network called `name` in MODELS, freshly initialised from torch's random state.

    Raises:
        ValueError: for an unknown name, kind or head, and for head="linear" where the last layer is an adder.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the known ones are {', '.join(MODELS)}."
        raise ValueError(f"build_model: expected the name of a model, got {name!r}; {hint}")
    if name not in WITHOUT_HEADS:
        return MODELS[name](num_classes=num_classes, kind=kind, head=head)
    if head != "norm":
        raise ValueError(
            f"build_model: expected head='norm' for {name}, whose last layer is an adder, got {head!r}."
        )
    return MODELS[name](num_classes=num_classes, kind=kind)
