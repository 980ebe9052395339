"""Finds subclasses of torch's layers and norms whose own code computes what torch's class computes.

The code is followed (`follow`), and every node of its graph has to be one that is expected here: a class that
does anything else, such as scaling its weight, is not recognised.
"""

import builtins
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Graph, Node

from addertrain.nn.fusing.follow import NotFollowedError, follow
from addertrain.nn.fusing.nodes import called
from addertrain.nn.padding import StridedEdges, padded

_PARAMETERS_OF = {
    F.linear: ("input", "weight", "bias"),
    F.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    F.batch_norm: (
        "input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps",
    ),
}  # fmt: skip
_PADS_TO_SAME = {"timm.layers.conv2d_same.Conv2dSame"}
_CHECKS = (builtins.getattr, operator.eq, torch._assert)
"""Functions that look at an input's shape and leave its numbers alone."""


def is_plain(layer: nn.Conv2d | nn.Linear) -> bool:
    """Whether a layer of any class computes what torch's own Conv2d or Linear computes."""
    own = type(layer)
    base: type[nn.Module] = nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d
    if "weight" not in layer._parameters or hasattr(own, "weight") or hasattr(own, "bias"):
        return False  # computed whenever it is read, as torch's parametrizations do
    if own.forward is base.forward and own.__call__ is base.__call__:
        return getattr(own, "_conv_forward", None) is getattr(base, "_conv_forward", None)
    if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        return False
    function = F.linear if isinstance(layer, nn.Linear) else F.conv2d
    return bool(graphs := _graphs(layer)) and all(_is_layer(graph, layer, function) for graph in graphs)


@torch.no_grad()
def pads_to_same(layer: nn.Module) -> bool:
    """Whether a convolution pads by the image's size, so that of H rows its stride u makes ceil(H / u).

    torch.fx cannot follow code that asks for a size. Classes are known by name, and one image confirms them.
    """
    own = type(layer)
    if f"{own.__module__}.{own.__qualname__}" not in _PADS_TO_SAME:
        return False
    assert isinstance(layer, nn.Conv2d)
    height, width = 7, 8
    image = torch.linspace(-1, 1, layer.in_channels * height * width).view(1, -1, height, width)
    image = image.to(layer.weight)
    (vertical, horizontal), (down, right), (dilation, spread) = (
        layer.kernel_size,
        layer.stride,
        layer.dilation,
    )
    edges = StridedEdges((vertical, horizontal), (down, right), (dilation, spread))
    expected = F.conv2d(
        padded(image, edges, "zeros"), layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups
    )
    y = own.forward(layer, image)
    return y.shape == expected.shape and (y.is_meta or torch.allclose(y, expected))


def modules_behind(norm: nn.BatchNorm2d) -> tuple[str, ...] | None:
    """The submodules that a BatchNorm2d of any class calls behind its norm, first to last; else None.

    timm's norms hold their activation. None: the norm has no weights, keeps no statistics, or its code does
    something else.
    """
    if not norm.affine or norm.running_mean is None:
        return None
    if type(norm).forward is nn.BatchNorm2d.forward:
        return ()
    if norm.momentum is None or not (graphs := _graphs(norm)):
        return None
    modes = (norm.training, not norm.training)
    found = [_behind(graph, norm, training) for graph, training in zip(graphs, modes, strict=False)]
    return found[0] if len(found) == len(modes) and found[0] == found[1] else None


def _graphs(module: nn.Module) -> list[Graph]:
    try:
        return [each.graph for each in follow(module)]
    except NotFollowedError:
        return []


def _is_layer(graph: Graph, layer: nn.Module, function: Any) -> bool:
    """Whether a graph is one call of `function` with the layer's own settings."""
    inputs, body, result = _parts(graph)
    if len(inputs) != 1 or len(body) != 1 or result is not body[0] or result.target is not function:
        return False
    expected = {
        name: getattr(layer, name)
        for name in _PARAMETERS_OF[function]
        if name not in ("input", "weight", "bias")
    }
    return _has_own_parameters(result, layer, inputs[0]) and _constants(result) == expected


def _behind(graph: Graph, norm: nn.BatchNorm2d, training: bool) -> tuple[str, ...] | None:
    """What a graph calls behind its only batch norm, which has to be that of the norm's own buffers."""
    inputs, body, result = _parts(graph)
    norms = [node for node in body if node.target is F.batch_norm]
    counts = [node for node in body if node.target == "add_"]
    if len(inputs) != 1 or len(norms) != 1 or not _is_count(counts, training):
        return None
    constants = {"training": training, "momentum": norm.momentum, "eps": norm.eps}
    if not _has_own_parameters(norms[0], norm, inputs[0]) or _constants(norms[0]) != constants:
        return None
    chain: list[Node] = []
    last = norms[0]
    while last is not result:
        (last, *others) = list(last.users) or [result]
        if others or not isinstance(called(last, norm), nn.Module):
            return None
        chain.append(last)
    rest = set(body) - {*norms, *counts, *chain}
    if any(node.op != "call_function" or node.target not in _CHECKS for node in rest):
        return None
    return tuple(str(node.target) for node in chain)


def _is_count(counts: list[Node], training: bool) -> bool:
    """Whether one batch is counted in training, and none in evaluation."""
    names = [(getattr(node.args[0], "target", None), node.args[1:]) for node in counts]
    return names == ([("num_batches_tracked", (1,))] if training else [])


def _parts(graph: Graph) -> tuple[list[Node], list[Node], Any]:
    """A graph's inputs, what it computes, and its result."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    body = [node for node in graph.nodes if node.op not in ("placeholder", "get_attr", "output")]
    return inputs, body, next(node.args[0] for node in graph.nodes if node.op == "output")


def _arguments(node: Node) -> dict[str, Any]:
    return {**dict(zip(_PARAMETERS_OF[node.target], node.args, strict=False)), **node.kwargs}


def _has_own_parameters(node: Node, module: nn.Module, x: Node) -> bool:
    """Whether a call gets `x`, and of the module its parameters and buffers under their names."""
    tensors = {name: value for name, value in _arguments(node).items() if isinstance(value, Node)}
    if tensors.pop("input", None) is not x:
        return False
    held = {**module._parameters, **module._buffers}
    needed = {name for name in _PARAMETERS_OF[node.target] if held.get(name) is not None}
    return needed == set(tensors) and all(
        each.op == "get_attr" and each.target == name for name, each in tensors.items()
    )


def _constants(node: Node) -> dict[str, Any]:
    return {
        name: value
        for name, value in _arguments(node).items()
        if value is not None and not isinstance(value, Node)
    }
