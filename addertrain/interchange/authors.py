"""The authors' checkpoints (github.com/huawei-noah/AdderNet): ResNet-20 for CIFAR-10, ResNet-50 for ImageNet.

Their layers have the same names as ours, with these differences: a filter is called `adder`, names may begin
with DataParallel's `module.`, the running means are those of Eq. 2, without our offset, and ResNet-50's last
layer has a bias.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from addertrain.errors import InterchangeError
from addertrain.models import build_model
from addertrain.nn import AdderConv2d

_WRAPPER = "module."
_NETWORKS = ("resnet20", "resnet50")
_NUM_BATCHES = "num_batches_tracked"


def load_official(path: str | Path, name: str, *, num_classes: int) -> nn.Module:
    """Loads a network that the authors' code trained; `name` is resnet20 or resnet50.

    Raises:
        InterchangeError: the file is a pickled module instead of a state_dict, or of another network.
    """
    state = import_official(_read(Path(path)))
    model = build_model(name, kind="adder", num_classes=num_classes)
    _check_fits(state, model.state_dict(), name=name)
    model.load_state_dict(state)
    return model.eval()


def import_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Converts their state_dict to that of the same network here; the arguments do not change. After an adder
    layer, running_mean becomes running_mean + Σ|F| (ours is the mean of Y + Σ|F|); after a convolution with a
    bias b it becomes running_mean - b, and the bias is removed.

    Raises:
        InterchangeError: there are no adder filters, or one without a norm after it.
    """
    plain = {name.removeprefix(_WRAPPER): tensor for name, tensor in state.items()}
    filters = {name.removesuffix(".adder"): w for name, w in plain.items() if name.endswith(".adder")}
    if not filters:
        raise InterchangeError(
            f"expected filters called '*.adder' as in the authors' files, got {', '.join(list(plain)[:3])}, "
            "...; checkpoints of addertrain need no --recipe"
        )
    found = {re.sub(r"\.adder$", ".weight", name): tensor.clone() for name, tensor in plain.items()}
    for layer, w_ocrs in filters.items():
        mean = _norm_behind(layer) + ".running_mean"
        if mean not in found:
            raise InterchangeError(
                f"expected a batch norm {mean} after the adder layer {layer}, got none; only networks of the "
                "authors' code, whose adder layers are followed by norms, can be converted"
            )
        found[mean] = (found[mean].double() + w_ocrs.double().abs().sum((1, 2, 3))).float()
    if (bias := found.pop("fc.bias", None)) is not None:
        found["bn2.running_mean"] = (found["bn2.running_mean"].double() - bias.double()).float()
    for name in [name for name in found if name.endswith(".running_mean")]:
        # Files from before torch 0.4.1 do not count batches.
        found.setdefault(name.replace("running_mean", _NUM_BATCHES), torch.zeros((), dtype=torch.int64))
    return found


def export_official(model: nn.Module, name: str) -> dict[str, Tensor]:
    """The inverse of `import_official`, under the names of the authors' files.

    Raises:
        InterchangeError: the authors have no such network, or it has no adder layers.
    """
    layers = {n for n, module in model.named_modules() if isinstance(module, AdderConv2d)}
    if name not in _NETWORKS or not layers:
        raise InterchangeError(
            f"expected {' or '.join(_NETWORKS)} of adder layers for the authors' layout, got {name}; leave "
            "--layout authors out"
        )
    found = {}
    for key, tensor in model.state_dict().items():
        layer, _, kind = key.rpartition(".")
        is_filter = layer in layers and kind == "weight"
        found[_WRAPPER + (f"{layer}.adder" if is_filter else key)] = tensor.detach().clone()
    for layer in layers:
        mean = f"{_WRAPPER}{_norm_behind(layer)}.running_mean"
        offset = model.get_parameter(f"{layer}.weight").detach().double().abs().sum((1, 2, 3))
        found[mean] = (found[mean].double() - offset).float()
    if name == "resnet50":  # theirs has one
        found[f"{_WRAPPER}fc.bias"] = torch.zeros(len(found[f"{_WRAPPER}fc.weight"]))
    return found


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InterchangeError(
            f"{path}: expected a checkpoint file of the authors' code, got none; check the path"
        ) from None
    except pickle.UnpicklingError:
        raise InterchangeError(
            f"{path}: expected a state_dict, got a pickled object, which could run any code when it is read "
            "(the authors' main.py saves whole modules); if you trust the file, save torch.load(FILE, "
            "weights_only=False).state_dict() in a checkout of their code, and convert that"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise InterchangeError(
            f"{path}: expected a file that torch.save wrote, got: {error}; check that it is complete"
        ) from None
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InterchangeError(
            f"{path}: expected a state_dict (names and tensors), got {type(content).__name__}; save the "
            "state_dict itself"
        )
    return content


def _norm_behind(layer: str) -> str:
    """conv2 is followed by bn2, a shortcut's layer 0 by its layer 1."""
    parent, _, last = layer.rpartition(".")
    norm = "1" if last == "0" else last.replace("conv", "bn")
    return f"{parent}.{norm}" if parent else norm


def _check_fits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, name: str) -> None:
    for key in expected:
        if key not in state:
            raise InterchangeError(
                f"{name}: expected {key} in the checkpoint, got none; choose the recipe of that network"
            )
    for key, tensor in state.items():
        if key not in expected or expected[key].shape != tensor.shape:
            wanted = tuple(expected[key].shape) if key in expected else "no such tensor"
            raise InterchangeError(
                f"{name}: expected {wanted} for {key}, got {tuple(tensor.shape)}; choose the recipe of that "
                "network"
            )
