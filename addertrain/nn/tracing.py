"""Whether a module's call is observed: by torch.fx, which records it, or by hooks.

torch.fx sees a module of this package like torch's own: as one node. A module with hooks, or with a forward
on the object, has to be called and cannot be replaced by an operator.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch.fx
from torch import nn

# Private in torch, read in 2.14.1: whether `register_module_forward_hook` and its kind registered anything.
from torch.nn.modules.module import _has_any_global_hook

Forward = TypeVar("Forward", bound=Callable[..., Any])


def is_traced(x: object) -> bool:
    """Whether torch.fx records what is done to `x`, whose values are then unknown."""
    return isinstance(x, torch.fx.Proxy)


def is_watched(*modules: nn.Module) -> bool:
    """Whether one of the modules has hooks, or a forward on the object, and has to be called."""
    return bool(_has_any_global_hook()) or any(
        "forward" in module.__dict__
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        for module in modules
    )


def leaf_of_fx(forward: Forward) -> Forward:
    """Makes of a module's forward(x) one node of torch.fx's graphs, under every tracer.

    Tracers look into all modules but torch.nn's, and kernels are chosen here by what x is.
    """

    @functools.wraps(forward)
    def forward_or_node(self: nn.Module, input: Any) -> Any:
        if not is_traced(input):
            return forward(self, input)
        tracer: Any = input.tracer
        return tracer.create_proxy("call_module", tracer.path_of_module(self), (input,), {})

    return forward_or_node  # type: ignore[return-value]
