"""Parameter groups for AdderSGD: which parameters are adder filters, and which decay."""

import weakref
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from addertrain.nn.kinds import AdderLayer

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def param_groups(
    model: nn.Module, *, weight_decay: float, decay_norm_and_bias: bool = True
) -> list[dict[str, Any]]:
    """The groups AdderSGD expects, chosen by the type of a parameter's module, never by its name.

    0. adder=True: the filters of all adder layers, in one group, with `layer_names` (dotted, in the model's
       order) and `layer_numel`, their true sizes.
    1. Everything else.
    2. Only if not `decay_norm_and_bias`: the parameters of norms and all biases, without decay.

    The first gradient of an adder filter whose layer was never called raises RuntimeError in backward.
    A group may be empty. A parameter that several modules share is listed once, as a filter if it is one.
    Call it on the plain model: wrappers such as DDP would put their prefix before the names.
    """
    decayed: dict[str, Any] = {"weight_decay": weight_decay}
    filters: dict[str, Any] = {"params": [], "adder": True, "layer_names": [], "layer_numel": [], **decayed}
    rest: dict[str, Any] = {"params": [], "adder": False, **decayed}
    plain: dict[str, Any] = {"params": [], "adder": False, "weight_decay": 0.0}
    seen: set[nn.Parameter] = set()
    for name, module in model.named_modules():
        if isinstance(module, AdderLayer) and module.weight not in seen:
            seen.add(module.weight)
            _expect_call_before_gradient(name, module)
            filters["params"].append(module.weight)
            filters["layer_names"].append(name)
            filters["layer_numel"].append(module.filter_numel)
    for module in model.modules():
        for name, param in module.named_parameters(recurse=False):
            if param not in seen:
                seen.add(param)
                is_plain = not decay_norm_and_bias and (isinstance(module, _NORMS) or name == "bias")
                (plain if is_plain else rest)["params"].append(param)
    return [filters, rest] if decay_norm_and_bias else [filters, rest, plain]


def _expect_call_before_gradient(name: str, layer: AdderLayer) -> None:
    """Checks at the filter's first gradient whether the layer itself computed with it.

    A module that reads `layer.weight` and multiplies by it gives it a gradient as well, and trains no adder
    layer. Filters in shards (FSDP2) get their gradients past autograd's hooks, and are not checked.
    """
    if not layer.weight.requires_grad:
        return
    reference = weakref.ref(layer)  # a cycle through autograd's hooks is one that nothing collects

    def check(_: Tensor) -> None:
        handle.remove()
        layer = reference()
        if layer is not None and not layer.was_called:
            raise RuntimeError(
                f"param_groups: expected the gradient of adder layer {name!r} to come from its forward "
                "pass, got one although the layer was never called; a module uses its weight directly; "
                f"keep that layer with convert(..., keep=({name!r},))."
            )

    handle = layer.weight.register_post_accumulate_grad_hook(check)
