"""Converts a convolutional network to adder layers.

convert_checks.py refuses what cannot be converted, and conversion.py describes the result.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from addertrain.errors import nearest
from addertrain.nn import convert_checks
from addertrain.nn.adder import AdderConv2d, AdderLinear
from addertrain.nn.conversion import Conversion, Fusion
from addertrain.nn.convert_checks import ConvertibleLayer
from addertrain.nn.fuse import Example, fuse
from addertrain.nn.fusing.chains import is_torchs_norm
from addertrain.nn.fusing.equivalents import modules_behind, pads_to_same
from addertrain.nn.kinds import AdderLayer
from addertrain.nn.merging import refuse_merging
from addertrain.nn.norm import BatchNorm2d, take_over
from addertrain.nn.padding import check_mode
from addertrain.nn.transposed import AdderConvTranspose2d


def convert(
    model: nn.Module,
    *,
    keep: Iterable[str] = (),
    offset_free: bool = True,
    example: Example | None = None,
) -> nn.Module:
    """A copy of `model` with every convolution and Linear replaced by an adder layer of the same geometry.

    Convolutions are Conv2d and ConvTranspose2d; subclasses are replaced where their code is the class's own.

    The copy's adder filters are initialised from N(0, 1), because a convolution's weights mean nothing to an
    adder; all other layers keep theirs. torch's BatchNorm2d become `addertrain.nn.BatchNorm2d`, and so do
    subclasses that only call modules behind the norm (timm's). The model passed in stays as it is. Lists,
    dicts, partials and methods of the copy that hold a layer hold its adder layer, and layers that share a
    filter still share one. The copy's `conversion` says what became of every layer.

    Args:
        keep: dotted names of layers to leave alone, or of modules to leave alone with all they contain. The
            papers keep the first and the last layer, as in keep=("conv1", "fc").
        offset_free: for layers that a norm follows, which adders need to train at all.
        example: a batch for `fuse`, which gives the copy the speed of our networks; None leaves that out.

    Raises:
        ValueError: for a name in `keep` that the model does not have, for a layer that has no adder variant
            or whose weight is read without calling it, for a model without layers to convert, and for an
            example that the model raises an error on.
        TypeError: if `keep` is a single string, or `model` no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert: expected a torch.nn.Module, got a {type(model).__name__}.")
    if isinstance(keep, str):
        raise TypeError(
            f"convert: expected keep as a sequence of names, got {keep!r}; write keep=({keep!r},)."
        )
    plan = _plan(model, tuple(keep))
    convert_checks.check(model, plan.layers, plan.kept)
    replacements = {layer: _adder_like(layer, offset_free=offset_free) for layer in plan.layers}
    converted = convert_checks.checked_copy(model, _replacements_by_id(replacements))
    for name, behind in plan.norms.items():
        norm = converted.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm2d)
        take_over(norm, behind)
    refuse_merging(converted)
    fusion = None if example is None else fuse(converted, example)
    converted.conversion = plan.report(model, fusion)  # type: ignore[assignment]
    return converted


@dataclass(frozen=True)
class _Plan:
    """What happens to each module of a network; layers are listed under their first names."""

    layers: dict[ConvertibleLayer, str]
    norms: dict[str, tuple[str, ...]]
    """With the submodules that each calls behind the norm."""
    kept: dict[nn.Module, str]
    """With all that `keep` covers, by the name in it."""

    def report(self, model: nn.Module, fusion: Fusion | None) -> Conversion:
        kept: dict[str, str] = {}
        skipped: dict[str, str] = {}
        for name, module in model.named_modules():
            if isinstance(module, ConvertibleLayer) and module in self.kept:
                covering = self.kept[module]
                kept[name] = "named in keep" if covering == name else f"part of {covering}, named in keep"
            elif module not in self.layers and (reason := convert_checks.why_skipped(module)):
                skipped[name] = reason
        converted = tuple(self.layers.values())
        norms = tuple(self.norms)
        return Conversion(converted=converted, kept=kept, skipped=skipped, norms=norms, fusion=fusion)


def _plan(model: nn.Module, keep: tuple[str, ...]) -> _Plan:
    modules = dict(model.named_modules(remove_duplicate=False))
    kept: dict[nn.Module, str] = {}
    for name in keep:
        below = list(modules[name].modules()) if name in modules else []
        if not any(map(_is_concerned, below)):
            raise ValueError(
                "convert: expected keep to name a convolution, a linear layer, a norm, or a module that "
                f"holds one, got {name!r}; {_hint(name, modules)}"
            )
        kept |= {module: name for module in below if module not in kept}
    rest = {module: name for name, module in reversed(modules.items()) if module not in kept}
    layers = {module: name for module, name in reversed(rest.items()) if isinstance(module, ConvertibleLayer)}
    norms = {
        name: behind
        for module, name in reversed(rest.items())
        if (behind := _behind_norm(module)) is not None
    }
    return _Plan(layers, norms, kept)


def _hint(name: str, modules: dict[str, nn.Module]) -> str:
    layers = [each for each, module in modules.items() if each and isinstance(module, ConvertibleLayer)]
    known = f"it has {', '.join(layers[:5])}, ..." if layers else "it has none."
    return nearest(name, layers, otherwise=known)


def _is_concerned(module: nn.Module) -> bool:
    """Whether `keep` can apply to the module."""
    layers = ConvertibleLayer | torch.jit.ScriptModule
    return isinstance(module, layers) or _behind_norm(module) is not None


def _behind_norm(module: nn.Module) -> tuple[str, ...] | None:
    """What a norm that ours can replace calls behind it; None for all other modules."""
    if is_torchs_norm(module):
        return ()
    if not isinstance(module, nn.BatchNorm2d) or isinstance(module, BatchNorm2d):
        return None
    return modules_behind(module)


def _replacements_by_id(replacements: dict[ConvertibleLayer, AdderLayer]) -> dict[int, object]:
    """The replacement for each layer and its parameters in deepcopy; shared parameters stay shared."""
    memo: dict[int, object] = {}
    for layer, adder in replacements.items():
        for name, param in layer._parameters.items():
            if param is None:
                continue
            if id(param) in memo:
                setattr(adder, name, memo[id(param)])
            memo[id(param)] = getattr(adder, name)
        memo[id(layer)] = adder
    return memo


def _adder_like(layer: ConvertibleLayer, *, offset_free: bool) -> AdderLayer:
    weight, has_bias = layer.weight, layer.bias is not None
    adder: AdderLayer
    if isinstance(layer, nn.Linear):
        adder = AdderLinear(
            layer.in_features, layer.out_features, bias=has_bias, offset_free=offset_free,
            device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
    elif isinstance(layer, nn.ConvTranspose2d):
        assert not isinstance(layer.padding, str)
        adder = AdderConvTranspose2d(
            layer.in_channels, layer.out_channels, _two(layer.kernel_size), _two(layer.stride),
            _two(layer.padding), _two(layer.output_padding), _two(layer.dilation), bias=has_bias,
            offset_free=offset_free, groups=layer.groups, device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
    else:
        adder = AdderConv2d(
            layer.in_channels, layer.out_channels,
            _two(layer.kernel_size), _two(layer.stride), _padding_of(layer), _two(layer.dilation),
            bias=has_bias, offset_free=offset_free, groups=layer.groups,
            padding_mode=check_mode("convert", layer.padding_mode), device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
    return adder.train(layer.training)


def _padding_of(layer: nn.Conv2d) -> tuple[int, int] | Literal["same", "valid"]:
    if pads_to_same(layer):
        return "same"
    if not isinstance(layer.padding, str):
        return _two(layer.padding)
    return "same" if layer.padding == "same" else "valid"


def _two(sizes: tuple[int, ...]) -> tuple[int, int]:
    first, second = sizes
    return first, second
