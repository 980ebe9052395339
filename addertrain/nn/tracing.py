"""Who looks at a module's call: torch.fx, which records it, and hooks, which wait for it.

torch.fx sees a module of this package as it sees torch's own: one node, not what happens within. What a hook
waits for has to be called, so that no operator stands for it, and so has a forward that lies on an object.
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
    """Whether torch.fx records what is done to `x`, which then answers no questions."""
    return isinstance(x, torch.fx.Proxy)


def is_watched(*modules: nn.Module) -> bool:
    """Whether somebody waits for one of the modules to be called: a hook, or a forward laid on the object."""
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
