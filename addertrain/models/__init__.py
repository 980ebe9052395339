"""Networks by name, built from adder layers, from convolutions (the baseline), or from binary layers."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import nn

from addertrain.errors import RecipeError, nearest
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
from addertrain.models.vgg_tiny import VGGTiny
from addertrain.own_code import OwnFunction, is_own

WITHOUT_HEADS: dict[str, Callable[..., nn.Module]] = {"lenet5bn": LeNet5BN, "lenet++": LeNetPlusPlus}
"""Networks whose last layer is of their kind as well."""

MODELS: dict[str, Callable[..., nn.Module]] = WITHOUT_HEADS | {
    "vgg_small": VGGSmall,
    "vgg_tiny": VGGTiny,
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "resnet101": resnet101,
}
"""The networks that `model.name` of a recipe can name, and the functions that build them."""

__all__ = [
    "MODELS",
    "MODEL_GIVEN",
    "Head",
    "Kind",
    "LayerCount",
    "LeNet5BN",
    "LeNetPlusPlus",
    "NetworkFunction",
    "OperationCount",
    "ResNet",
    "VGGSmall",
    "VGGTiny",
    "build_model",
    "count_operations",
    "energy_joules",
    "own_network",
    "via_nano_cycles",
]


MODEL_GIVEN = ("num_classes", "in_channels", "kind")
"""The keyword arguments that a function of your own gets besides its own arguments."""


class NetworkFunction(Protocol):
    """The function that `model.name: package.module:function` names."""

    def __call__(self, *, num_classes: int, in_channels: int, kind: Kind, **arguments: Any) -> nn.Module:
        """A network from normalised images [N, in_channels, H, W] to logits [N, num_classes].

        Its first weights come from torch's random state, which is set before. `kind` is the recipe's, or
        "conv" for a teacher; `addertrain.models.layers` has layers of each kind. It is also called under
        `torch.device("meta")`, where tensors have shapes and no values.
        """


def own_network(name: str, arguments: Mapping[str, Any]) -> OwnFunction:
    """Your own function that `name` names, with its arguments checked, for `build_model`.

    Raises:
        RunError, RecipeError: there is no such function, or its arguments do not fit.
    """
    function = OwnFunction.named("model.name", name, given=MODEL_GIVEN)
    function.check(arguments)
    return function


def build_model(
    name: str,
    *,
    kind: Kind,
    num_classes: int,
    head: Head = "norm",
    in_channels: int | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The network called `name` in MODELS, or one of your own, initialised from torch's random state.

    Args:
        in_channels: the channels of the images, which have to be those of the networks in MODELS.
        arguments: keyword arguments of a function of your own, "package.module:function".

    Raises:
        ValueError: for an unknown name, kind or head, and for head="linear" if the last layer is an adder
            layer.
        RecipeError, RunError: a function of your own cannot be used, or returns no module.
    """
    if is_own(name):
        function = own_network(name, arguments or {})
        channels = {"in_channels": in_channels or 3, "kind": kind}
        model = function(arguments or {}, num_classes=num_classes, **channels)
        if not isinstance(model, nn.Module):
            raise RecipeError(
                f"model.name: expected a torch.nn.Module from {name}, got {type(model).__name__}; let the "
                "function return a module"
            )
        return model
    if name not in MODELS:
        hint = nearest(name, MODELS, otherwise=f"the known ones are {', '.join(MODELS)}.")
        raise ValueError(f"build_model: expected the name of a model, got {name!r}; {hint}")
    if name not in WITHOUT_HEADS:
        return MODELS[name](num_classes=num_classes, kind=kind, head=head)
    if head != "norm":
        raise ValueError(
            f"build_model: expected head='norm' for {name}, whose last layer is an adder layer, got {head!r}."
        )
    return MODELS[name](num_classes=num_classes, kind=kind)
