"""Finds the adder layers that read the output of a ReLU at every one of their calls.

The promise of `AdderConv2d.rectified` is that the operation before x drops the gradient of its zeros. A ReLU
does, and pooling, adding, joining or reshaping its output preserves this. Products, sigmoids and clamps do
not.
"""

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Graph, Node

from addertrain.nn.fusing.chains import GraphsOf
from addertrain.nn.fusing.nodes import called, is_leaf, is_relu, origins, summands, written
from addertrain.nn.kinds import SpatialAdder
from addertrain.nn.norm import BatchNorm2d
from addertrain.nn.tracing import is_watched

_KEEPING_MODULES = (
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.Dropout, nn.Dropout2d, nn.Flatten,
    nn.Identity, nn.MaxPool2d,
)  # fmt: skip
_KEEPING_FUNCTIONS = (
    F.adaptive_avg_pool2d, F.avg_pool2d, F.dropout, F.max_pool2d, operator.getitem, torch.flatten,
    torch.permute, torch.reshape, torch.unsqueeze,
)  # fmt: skip
_KEEPING_METHODS = ("contiguous", "flatten", "permute", "reshape", "squeeze", "unsqueeze", "view")


class Rectification:
    """Follows calls from a network down to its adder layers, with what is known of each call's inputs.

    Each tensor has a reason why it may not be the output of a ReLU, which is empty if it is.
    """

    def __init__(self, graphs_of: GraphsOf, names: Mapping[nn.Module, str]) -> None:
        self._graphs_of = graphs_of
        self._names = names
        self._reasons: dict[SpatialAdder, str] = {}
        self._results: dict[tuple[nn.Module, tuple[str, ...]], str] = {}

    def of(self, network: nn.Module) -> dict[SpatialAdder, str]:
        """The layers that are called: no reason for those whose every call reads a ReLU's output."""
        self._call(network, ("it reads the network's input",))
        return self._reasons

    def _call(self, module: nn.Module, inputs: tuple[str, ...]) -> str:
        """What is known of the module's result, given what is known of its inputs."""
        if is_watched(module, *_called_inside(module)):  # a hook may return other numbers, or be given others
            reason = f"a hook on {self._name(module)} may change numbers"
            self._call_unwatched(module, (reason,) * len(inputs))
            return reason
        return self._call_unwatched(module, inputs)

    def _call_unwatched(self, module: nn.Module, inputs: tuple[str, ...]) -> str:
        if isinstance(module, SpatialAdder):
            reason = inputs[0] if len(inputs) == 1 else "it is not called with one tensor alone"
            self._reasons[module] = self._reasons.get(module) or reason
        if is_leaf(module):
            return _result_of_leaf(module, inputs, f"it reads the result of {self._name(module)}")
        if (module, inputs) not in self._results:
            self._results[module, inputs] = "it belongs to code that calls itself"  # until that is followed
            self._results[module, inputs] = self._follow(module, inputs)
        return self._results[module, inputs]

    def _follow(self, module: nn.Module, inputs: tuple[str, ...]) -> str:
        graphs = self._graphs_of(module)
        if not graphs:  # it may call what it holds with anything
            reason = f"the code of {self._name(module)} cannot be followed"
            for child in module.children():
                self._call(child, (reason,))
            return reason
        results = [self._run(graph, module, inputs) for graph in graphs]  # all of them: each calls layers
        return _first(results)

    def _run(self, graph: Graph, owner: nn.Module, inputs: tuple[str, ...]) -> str:
        known: dict[Node, str] = {}
        places = [node for node in graph.nodes if node.op == "placeholder"]
        unknown = f"{self._name(owner)} is called with other arguments than its code names"
        given = dict(
            zip(places, inputs if len(inputs) == len(places) else [unknown] * len(places), strict=True)
        )
        result = f"its input is one of several results of {self._name(owner)}"
        lies_in: dict[Node, frozenset[Node]] = {}
        for node in graph.nodes:
            other = f"it reads the result of {node.name} in {self._name(owner)}"
            if node.op == "call_module":
                rest = tuple(known.get(each, other) for each in node.args if isinstance(each, Node))
                is_plain = len(rest) == len(node.args) and not node.kwargs
                found = self._call(owner.get_submodule(str(node.target)), rest)
                found = found if is_plain else found or other
            elif node.op == "output":
                result = known.get(node.args[0], result)
                continue
            else:
                found = given[node] if node in given else _result(node, owner, known, other)
            self._note_writes(node, owner, known, lies_in)
            known[node] = found
        return result

    def _note_writes(
        self, node: Node, owner: nn.Module, known: dict[Node, str], lies_in: dict[Node, frozenset[Node]]
    ) -> None:
        """Marks the tensors that a node writes into, and those in the same memory, as no longer a ReLU's
        output.
        """
        lies_in[node] = origins(node, owner, self._graphs_of, lies_in)
        if is_relu(node, owner) or type(called(node, owner)) is nn.ReLU6:
            return
        reason = f"it reads what {node.name} in {self._name(owner)} writes into"
        for target in written(node, owner, self._graphs_of):
            known.update((each, reason) for each in known if lies_in[each] & lies_in[target])

    def _name(self, module: nn.Module) -> str:
        return self._names.get(module) or "the network itself"


def _called_inside(module: nn.Module) -> tuple[nn.Module, ...]:
    """Activations that belong to a norm."""
    return tuple(map(module.get_submodule, module.then)) if isinstance(module, BatchNorm2d) else ()


def _first(reasons: Iterable[str]) -> str:
    return next(filter(None, reasons), "")


def _result_of_leaf(module: nn.Module, inputs: tuple[str, ...], other: str) -> str:
    if type(module) in (nn.ReLU, nn.ReLU6):
        return ""
    if isinstance(module, BatchNorm2d):
        result = "" if module.relu else other
        for each in _called_inside(module):
            result = _result_of_leaf(each, (result,), other)
        return result
    if isinstance(module, nn.AvgPool2d) and module.divisor_override is not None:
        return other
    is_pair = isinstance(module, nn.MaxPool2d | nn.AdaptiveMaxPool2d) and module.return_indices
    return inputs[0] if type(module) in _KEEPING_MODULES and len(inputs) == 1 and not is_pair else other


def _result(node: Node, owner: nn.Module, known: dict[Node, str], other: str) -> str:
    if is_relu(node, owner):
        return ""
    if node.op not in ("call_function", "call_method"):
        return other
    if (pair := summands(node)) is not None:
        return _first(known.get(each, other) for each in pair)
    if node.target is torch.cat and isinstance(node.args[0], list | tuple):
        return _first(known.get(each, other) for each in node.args[0])
    names: Any = _KEEPING_FUNCTIONS if node.op == "call_function" else _KEEPING_METHODS
    is_same = (
        len(node.args) < 7  # the seventh is one of these, which torch.fx writes down at their defaults too
        and node.kwargs.get("divisor_override") is None
        and node.kwargs.get("return_indices", False) is False
    )
    first = node.args[0] if node.args else None
    keeps = node.target in names and is_same and isinstance(first, Node)
    return known.get(first, other) if keeps else other
