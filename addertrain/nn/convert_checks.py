"""What `convert` refuses because the copy would compute something else; each error names the layer."""

import copy
from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import UninitializedParameter

from addertrain.nn.conv import Conv2d
from addertrain.nn.fusing.equivalents import is_plain, pads_to_same
from addertrain.nn.ordered import OrderedConv2d, OrderedLinear
from addertrain.nn.references import references_to
from addertrain.nn.weight_reads import weight_reads

_COMPUTED = "call torch.nn.utils.remove_weight_norm, remove_spectral_norm or prune.remove first"

_KEEP_ALL = "keep=[name for name, module in model.named_modules() if"

ConvertibleLayer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
Layers = Mapping[Any, str]
"""The layers to convert, and their first names."""


def check(model: nn.Module, layers: Layers, kept: Mapping[nn.Module, str]) -> None:
    """Refuses a network that cannot be converted.

    Raises:
        ValueError: with the name of the layer in question.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and module not in kept:
            raise ValueError(
                f"convert: expected a network of Python modules, got {_called(name)} as a ScriptModule, "
                "whose layers cannot be replaced; convert the network before "
                f"torch.jit.script{_or_keep(name)}."
            )
        _refuse_computed_weights(name, module)
    if not layers:
        others = sorted({type(module).__name__ for module in model.modules() if why_skipped(module)})
        found = f", only {', '.join(others)}" if others else ""
        raise ValueError(
            "convert: expected a Conv2d, ConvTranspose2d or Linear to "
            f"convert{', other than those in keep' if kept else ''}, got none{found}; other layers have no "
            "adder variant."
        )
    for layer, name in layers.items():
        _refuse_formless(name, layer, layers)
        _refuse_frozen(name, layer)
        _refuse_hooks(name, layer)
    _refuse_shared_parameters(model, layers)
    _refuse_weight_reads(model, layers)


def why_skipped(module: nn.Module) -> str | None:
    """Why a module other than those layers keeps its weights; None for norms and modules without
    weights.
    """
    if isinstance(module, ConvertibleLayer | _NormBase | nn.GroupNorm | nn.LayerNorm | nn.RMSNorm):
        return None
    is_weighted = any(param is not None and param.dim() > 1 for param in module._parameters.values())
    return f"{type(module).__name__} has no adder form" if is_weighted else None


def checked_copy(model: nn.Module, memo: dict[int, object]) -> nn.Module:
    """A deep copy in which `memo` replaces modules and parameters, and which shares nothing with the
    original.

    Raises:
        ValueError: if the copy would still use a layer of the original.
    """
    replaced = set(memo)
    try:
        copied: nn.Module = copy.deepcopy(model, memo)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"convert: expected a network that copy.deepcopy can copy, got: {reason}; remove what cannot be "
            "copied."
        ) from error
    for path, held in references_to(set(model.modules()), copied):
        name = next(name for name, module in model.named_modules() if module is held)
        raise ValueError(
            f"convert: expected layers to be held by modules only, got {path!r}, a function or weak "
            f"reference that would still use {_called(name)} of the network passed in; make it a method."
        )
    _refuse_methods_of_layers(model, replaced)
    return copied


def _refuse_formless(name: str, layer: nn.Module, layers: Layers) -> None:
    advice = f"add {name!r} to keep."
    if any(isinstance(param, UninitializedParameter) for param in layer._parameters.values()):
        raise ValueError(
            f"convert: expected layer {name!r} to know its sizes, got a {type(layer).__name__} that has not "
            "seen an input; pass a batch through the network first."
        )
    if not is_convertible(layer):
        if sum(type(each) is type(layer) for each in layers) > 1:
            advice = f"keep all of these by {_KEEP_ALL} isinstance(module, {type(layer).__name__})]."
        raise ValueError(
            f"convert: expected layer {name!r} to be a plain Conv2d or Linear, got {type(layer).__name__}, "
            f"whose forward may do more; {advice}"
        )


def is_convertible(layer: nn.Module) -> bool:
    """Whether an adder layer has the geometry of what a Conv2d or Linear of any class computes."""
    if type(layer) in (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, Conv2d, OrderedConv2d, OrderedLinear):
        return True
    return isinstance(layer, nn.Conv2d | nn.Linear) and (is_plain(layer) or pads_to_same(layer))


def _refuse_frozen(name: str, layer: nn.Module) -> None:
    """A frozen layer is meant to keep its weights, but an adder layer's are initialised again."""
    frozen = [
        key for key, param in layer._parameters.items() if param is not None and not param.requires_grad
    ]
    if frozen:
        raise ValueError(
            f"convert: expected layer {name!r} to be trainable, because its filters are initialised again, "
            f"got requires_grad=False for its {' and '.join(frozen)}; add {name!r} to keep, or call "
            "requires_grad_(True) before and freeze the converted network."
        )


def _refuse_computed_weights(name: str, module: nn.Module) -> None:
    for attribute, value in vars(module).items():
        if isinstance(value, Tensor) and value.grad_fn is not None:
            raise ValueError(
                f"convert: expected independent parameters, got {attribute!r} of {_called(name)}, which is "
                f"computed from others (weight norm, spectral norm, pruning); {_COMPUTED}."
            )


def _refuse_hooks(name: str, layer: nn.Module) -> None:
    if "weight" not in layer._parameters:
        raise ValueError(
            f"convert: expected layer {name!r} with a weight of its own, got one that a hook computes; "
            f"{_COMPUTED}."
        )
    holders = [layer, *(param for param in layer._parameters.values() if param is not None)]
    hooks = {key for each in holders for key, value in vars(each).items() if "hooks" in key and value}
    hooks |= {key for each in holders[1:] for key in _PARAMETER_HOOKS if getattr(each, key, None)}
    if hooks:
        raise ValueError(
            f"convert: expected layer {name!r} without hooks, got {', '.join(sorted(hooks))}, which its "
            "adder layer would lose; register them on the converted network instead."
        )


_PARAMETER_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def _refuse_shared_parameters(model: nn.Module, layers: Layers) -> None:
    """Layers may share a parameter if all are converted; two parameters may not share memory."""
    owners: dict[int, list[tuple[str, nn.Module, Tensor]]] = {}
    for name, module in model.named_modules():
        for key, param in module._parameters.items():
            if param is not None and not isinstance(param, UninitializedParameter):
                place = param.untyped_storage().data_ptr() or id(param)  # 0 without memory: meta, empty
                owners.setdefault(place, []).append((f"{name}.{key}".lstrip("."), module, param))
    for shared in owners.values():
        converted = [owner for owner in shared if owner[1] in layers]
        others = [owner for owner in shared if owner[1] not in layers or owner[2] is not converted[0][2]]
        if converted and others:
            layer = layers[converted[0][1]]
            raise ValueError(
                f"convert: expected layer {layer!r} with parameters of its own, got {converted[0][0]} and "
                f"{others[0][0]} in the same memory; untie them, or add {layer!r} to keep."
            )


def _refuse_weight_reads(model: nn.Module, layers: Layers) -> None:
    for name, module in model.named_modules():
        reads = {layers[layer]: how for layer, how in weight_reads(module) if layer in layers}
        if reads:
            kind = type(module)
            layer, how = next(iter(reads.items()))
            advice = f"add {', '.join(map(repr, reads))} to keep."
            if sum(type(each) is kind for each in model.modules()) > 1:
                advice = f"keep all of these by {_KEEP_ALL} isinstance(module, {kind.__name__})]."
            raise ValueError(
                f"convert: expected layer {layer!r} to be called, got {how} in {kind.__name__} "
                f"({_called(name)}), which would multiply by the filter of an adder layer; {advice}"
            )


def _refuse_methods_of_layers(model: nn.Module, replaced: set[int]) -> None:
    """A method of a convolution that is kept somewhere would be called on the adder layer."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if isinstance(value, MethodType) and id(value.__self__) in replaced:
                raise ValueError(
                    f"convert: expected layers to be called, got {attribute!r} of {_called(name)}, a method "
                    "of a layer to convert; store the layer itself there."
                )


def _called(name: str) -> str:
    return repr(name) if name else "the network itself"


def _or_keep(name: str) -> str:
    return f", or add {name!r} to keep" if name else ""
