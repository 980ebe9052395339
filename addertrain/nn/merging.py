"""Refuses to merge layers of a converted network into convolutions.

Reparametrised networks (RepVGG, MobileOne, LeViT's layers with norms) have a method that multiplies a layer's
weight by its norm's scale and puts a convolution in the place of both. Of an adder layer it would make a
convolution with the filters of an adder, without an error.
"""

import inspect
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import nn

from addertrain.nn.kinds import AdderLayer

_METHODS = ("fuse", "reparameterize", "switch_to_deploy")
"""The names that timm and the authors of such networks give the method."""


@dataclass(frozen=True)
class _Refusal:
    """Stands for the method of one module."""

    name: str
    method: str

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(
            f"convert: expected adder layers to stay layers, got a call of {self.method} of "
            f"{self.name or 'the network itself'}, which would multiply by their filters; leave it out."
        )


def refuse_merging(network: nn.Module) -> None:
    """Makes such methods of modules that hold adder layers raise an error of one line."""
    for name, module in network.named_modules():
        if any(isinstance(each, AdderLayer) for each in module.modules()):
            for method in _METHODS:
                if _merges(type(module), method):
                    setattr(module, method, _Refusal(name, method))


def _merges(kind: type[nn.Module], method: str) -> bool:
    """Whether a class has the method, without arguments and not for its own forward pass."""
    function = getattr(kind, method, None)
    if not inspect.isfunction(function):
        return False
    _, *arguments = inspect.signature(function).parameters.values()
    code = getattr(inspect.unwrap(kind.forward), "__code__", None)
    is_for_forward = code is not None and method in code.co_names
    return not is_for_forward and all(
        each.default is not each.empty or each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        for each in arguments
    )
