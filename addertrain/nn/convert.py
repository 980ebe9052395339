"""Turn a convolutional network into its adder twin."""

import copy
import difflib
from collections.abc import Iterable

from torch import nn

from addertrain.nn.adder import AdderConv2d, AdderLinear


def convert(model: nn.Module, *, keep: Iterable[str] = (), offset_free: bool = True) -> nn.Module:
    """A copy of `model` with every Conv2d and Linear replaced by an adder layer of the same geometry.

    The copy's adder filters are drawn anew from N(0, 1), because a convolution's weights mean nothing to an
    adder; all other layers keep theirs. The model passed in stays as it is.

    Args:
        keep: dotted names of layers to leave alone, or of modules to leave alone with all they contain. The
            papers keep the first and the last layer, as in keep=("conv1", "fc").
        offset_free: for layers that a norm follows, which adders need to train at all.

    Raises:
        ValueError: for a name in `keep` that the model does not have, and for a layer that has no adder form.
        TypeError: if `keep` is a single string.
    """
    if isinstance(keep, str):
        raise TypeError(
            f"convert: expected keep as a sequence of names, got {keep!r}; write keep=({keep!r},)."
        )
    names = _names_to_convert(model, tuple(keep))
    for name in names:
        _refuse_formless(name, model.get_submodule(name))
    twin = copy.deepcopy(model)
    replaced: dict[nn.Module, nn.Module] = {}  # a module with two names stays one module
    for name in names:
        layer = twin.get_submodule(name)
        if layer not in replaced:
            replaced[layer] = _adder_like(layer, offset_free=offset_free)
        if name == "":
            return replaced[layer]
        parent, _, attribute = name.rpartition(".")
        setattr(twin.get_submodule(parent), attribute, replaced[layer])
    return twin


def _names_to_convert(model: nn.Module, keep: tuple[str, ...]) -> list[str]:
    """Every name of every Conv2d and Linear that `keep` does not cover."""
    modules = dict(model.named_modules(remove_duplicate=False))
    layers = {name: module for name, module in modules.items() if isinstance(module, nn.Conv2d | nn.Linear)}
    kept: set[nn.Module] = set()
    for name in keep:
        below = (
            {layer for layer in modules[name].modules() if layer in layers.values()}
            if name in modules
            else set()
        )
        if not below:
            near = difflib.get_close_matches(name, layers, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(list(layers)[:5])}, ..."
            raise ValueError(
                f"convert: expected keep to name a convolution or linear layer, got {name!r}; {hint}"
            )
        kept |= below
    return [name for name, layer in layers.items() if layer not in kept]


def _refuse_formless(name: str, layer: nn.Module) -> None:
    advice = f"add {name!r} to keep."
    if type(layer) not in (nn.Conv2d, nn.Linear):
        raise ValueError(
            f"convert: expected layer {name!r} to be a plain Conv2d or Linear, got {type(layer).__name__}, "
            f"whose forward may do more; {advice}"
        )
    if isinstance(layer, nn.Conv2d):
        if layer.groups != 1:
            raise ValueError(
                f"convert: expected layer {name!r} with groups=1, got groups={layer.groups}; grouped "
                f"adder layers are not supported, {advice}"
            )
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            raise ValueError(
                f"convert: expected layer {name!r} with zero padding given in numbers, got "
                f"padding={layer.padding!r}, padding_mode={layer.padding_mode!r}; {advice}"
            )


def _adder_like(layer: nn.Module, *, offset_free: bool) -> nn.Module:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    weight, has_bias = layer.weight, layer.bias is not None
    adder: AdderConv2d | AdderLinear
    if isinstance(layer, nn.Linear):
        adder = AdderLinear(
            layer.in_features, layer.out_features, bias=has_bias, offset_free=offset_free,
            device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
    else:
        assert not isinstance(layer.padding, str)
        adder = AdderConv2d(
            layer.in_channels, layer.out_channels,
            _two(layer.kernel_size), _two(layer.stride), _two(layer.padding), _two(layer.dilation),
            bias=has_bias, offset_free=offset_free, device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
    return adder.train(layer.training)


def _two(sizes: tuple[int, ...]) -> tuple[int, int]:
    first, second = sizes
    return first, second
