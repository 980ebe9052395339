"""What optimizers of adder networks are built with: groups with every layer's true size, valid settings.

The rate of an adder layer needs the norm of its unsharded gradient. A parameter that is a shard of a layer,
or holds several layers, would train with a wrong rate and without an error; so everything that is not
recognised here, or in shards.py at the first step, is refused.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from torch import Tensor
from torch.nn import Parameter

from addertrain.optim.scaling import AlrMode
from addertrain.optim.shards import Original, dtensors

Group = dict[str, Any]
_STATE_WORDS = {"momentum_buffer": "momentum"}


def check_hyperparameters(group: Mapping[str, Any]) -> None:
    """Refuse values with which SGD or Eq. 13 has no meaning; `group` is a parameter group or the defaults.

    Raises:
        ValueError: naming the value, its range and what came.
    """
    ranges = {
        "lr": (0.0, math.inf, "lr >= 0"),
        "momentum": (0.0, 1.0, "0 <= momentum < 1"),
        "weight_decay": (0.0, math.inf, "weight_decay >= 0"),
    }
    for name, (low, high, text) in ranges.items():
        if not _is_number(group[name]) or not low <= group[name] < high:
            raise ValueError(f"AdderSGD: expected {text}, got {name}={group[name]!r}.")
    for name in ("eta", "increase"):
        if not _is_number(group[name]) or not 0 < group[name] < math.inf:
            raise ValueError(f"AdderSGD: expected {name} > 0, got {name}={group[name]!r}.")
    if group["alr"] not in get_args(AlrMode):
        raise ValueError(
            f"AdderSGD: expected alr to be one of {', '.join(get_args(AlrMode))}, got {group['alr']!r}."
        )
    if group["nesterov"] and group["momentum"] == 0:
        raise ValueError(
            "AdderSGD: expected momentum > 0 with nesterov=True, got momentum=0; set nesterov=False."
        )


def check_groups(groups: Sequence[Group]) -> None:
    """Refuse groups that do not mark the adder filters, or whose tensors are not known to be layers.

    Raises:
        ValueError: if there is no group, or more than one, with adder=True, or its layers do not match.
        TypeError: if a parameter is flattened, lazy or of a kind that is not known.
    """
    num_adder = sum(bool(group.get("adder")) for group in groups)
    if num_adder != 1:
        raise ValueError(
            "optimizer: expected exactly one parameter group with adder=True, holding all adder filters, got "
            f"{num_adder} in {len(groups)} groups; build the groups with addertrain.nn.param_groups(model)."
        )
    for index, group in enumerate(groups):
        for param in group["params"]:
            if type(param) not in (Parameter, Tensor, *dtensors()) or not param.is_floating_point():
                raise TypeError(
                    "optimizer: expected floating-point parameters, unsharded or sharded by fully_shard, "
                    f"got a {type(param).__name__} of {param.dtype} in group {index}; build the optimizer "
                    "after the first forward of lazy layers, and use fully_shard instead of FSDP1."
                )
        if group.get("adder"):
            _check_layers(index, group)


def check_saved_groups(saved: Mapping[str, Any], groups: Sequence[Group]) -> None:
    """Refuse groups of other layers, or of another kind of ALR.

    Raises:
        ValueError: naming the first difference.
    """
    if len(saved["param_groups"]) != len(groups):
        raise ValueError(
            f"optimizer: expected a state of {len(groups)} parameter groups, got "
            f"{len(saved['param_groups'])}; load a checkpoint of the same model and recipe."
        )
    for mine, theirs in zip(groups, saved["param_groups"], strict=True):
        for key in ("adder", "rule", "layer_names", "layer_numel", "alr"):
            if mine.get(key) != theirs.get(key):
                raise ValueError(
                    f"optimizer: expected a state with {key}={_short(mine.get(key))}, got "
                    f"{_short(theirs.get(key))}; load a checkpoint of the same model and recipe."
                )


def check_saved_state(saved: Mapping[str, Any], groups: Sequence[Group]) -> None:
    """Refuse the state of other layers, or of another kind of ALR, before anything is overwritten.

    Raises:
        ValueError: naming the first difference.
    """
    check_saved_groups(saved, groups)
    for mine, theirs in zip(groups, saved["param_groups"], strict=True):
        for param, index in zip(mine["params"], theirs["params"], strict=False):
            for key, value in saved["state"].get(index, {}).items():
                if is_element_state(mine, value) and value.shape != param.shape:
                    raise misshapen(key, param.shape, index, value)


def is_element_state(group: Mapping[str, Any], value: object) -> bool:
    """Whether a value of a parameter's state has an entry for each of its elements, as momentum has."""
    return isinstance(value, Tensor) and value.dim() > 0 and bool(group.get("elementwise", True))


def misshapen(key: str, shape: Sequence[int], number: int, value: Tensor) -> ValueError:
    """The error about a state of another shape than its parameter's."""
    return ValueError(
        f"optimizer: expected {_STATE_WORDS.get(key, key)} of shape {tuple(shape)} for parameter {number}, "
        f"got {tuple(value.shape)}; load a checkpoint of the same model and recipe."
    )


def _check_layers(index: int, group: Group) -> None:
    names, numels, params = group.get("layer_names"), group.get("layer_numel"), group["params"]
    if names is None or numels is None or not len(names) == len(numels) == len(params):
        raise ValueError(
            f"optimizer: expected layer_names and layer_numel for each of the {len(params)} adder filters of "
            f"group {index}, got {_short(names)} and {_short(numels)}; build the groups with "
            "addertrain.nn.param_groups(model)."
        )
    for name, numel, param in zip(names, numels, params, strict=True):
        if Original.of(param).numel != numel:
            raise ValueError(
                f"optimizer: expected the unsharded filter of layer {name} with {numel} elements, got a "
                f"tensor of {param.numel()}; build it from the model's own parameters, or after fully_shard."
            )
    if group.get("alr") == "local" and any(isinstance(param, dtensors()) for param in params):
        raise ValueError(
            'optimizer: expected unsharded gradients in backward with alr="local", got sharded parameters; '
            "use one process or DDP."
        )
    places = {(param.device, param.dtype) for param in params}
    if len(places) > 1:
        raise ValueError(
            "optimizer: expected all adder filters on the same device with the same dtype, got "
            f"{_short(sorted(map(str, places)))}; move the model before building the optimizer."
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
