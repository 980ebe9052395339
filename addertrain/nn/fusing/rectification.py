"""Which adder layers read what a ReLU let through, at every one of their calls.

The promise of `AdderConv2d.rectified` is that whatever made x drops the gradient of its zeros. A ReLU does;
what pools, adds, joins or reshapes such tensors keeps it. Products, sigmoids and clamps do not.
"""

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Graph, Node

from addertrain.nn.adder import AdderConv2d
from addertrain.nn.fusing.chains import GraphsOf
from addertrain.nn.fusing.nodes import is_leaf, is_relu, summands
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
    """Follows calls from a network down to its adder layers, with what is known of each call's inputs."""

    def __init__(self, graphs_of: GraphsOf) -> None:
        self._graphs_of = graphs_of
        self._reads_relu: dict[AdderConv2d, bool] = {}
        self._results: dict[tuple[nn.Module, tuple[bool, ...]], bool] = {}

    def of(self, network: nn.Module) -> set[AdderConv2d]:
        """The layers whose every call reads a ReLU's output; of the network's input nothing is known."""
        self._call(network, (False,))
        return {layer for layer, reads in self._reads_relu.items() if reads}

    def _call(self, module: nn.Module, inputs: tuple[bool, ...]) -> bool:
        """Whether a ReLU let the module's result through, if one did those of its inputs that are True."""
        if is_watched(module):  # a hook may return other numbers, or be given others
            self._call_unwatched(module, (False,) * len(inputs))
            return False
        return self._call_unwatched(module, inputs)

    def _call_unwatched(self, module: nn.Module, inputs: tuple[bool, ...]) -> bool:
        if isinstance(module, AdderConv2d):
            self._reads_relu[module] = self._reads_relu.get(module, True) and inputs == (True,)
        if is_leaf(module):
            return _result_of_leaf(module, inputs)
        if (module, inputs) not in self._results:
            self._results[module, inputs] = False  # of a module that calls itself nothing is known
            self._results[module, inputs] = self._follow(module, inputs)
        return self._results[module, inputs]

    def _follow(self, module: nn.Module, inputs: tuple[bool, ...]) -> bool:
        graphs = self._graphs_of(module)
        if not graphs:  # it may call what it holds with anything
            for child in module.children():
                self._call(child, (False,))
            return False
        results = [self._run(graph, module, inputs) for graph in graphs]  # all of them: each calls layers
        return all(results)

    def _run(self, graph: Graph, owner: nn.Module, inputs: tuple[bool, ...]) -> bool:
        known: dict[Node, bool] = {}
        places = [node for node in graph.nodes if node.op == "placeholder"]
        given = dict(
            zip(places, inputs if len(inputs) == len(places) else [False] * len(places), strict=True)
        )
        result = False
        for node in graph.nodes:
            if node.op == "call_module":
                rest = tuple(known.get(each, False) for each in node.args if isinstance(each, Node))
                is_plain = len(rest) == len(node.args) and not node.kwargs
                known[node] = self._call(owner.get_submodule(str(node.target)), rest) and is_plain
            elif node.op == "output":
                result = known.get(node.args[0], False)
            else:
                known[node] = given[node] if node in given else _result(node, owner, known)
        return result


def _result_of_leaf(module: nn.Module, inputs: tuple[bool, ...]) -> bool:
    if type(module) in (nn.ReLU, nn.ReLU6):
        return True
    if isinstance(module, BatchNorm2d):
        return module.relu
    if isinstance(module, nn.AvgPool2d) and module.divisor_override is not None:
        return False
    is_pair = isinstance(module, nn.MaxPool2d | nn.AdaptiveMaxPool2d) and module.return_indices
    return type(module) in _KEEPING_MODULES and inputs == (True,) and not is_pair


def _result(node: Node, owner: nn.Module, known: dict[Node, bool]) -> bool:
    if is_relu(node, owner):
        return True
    if node.op not in ("call_function", "call_method"):
        return False
    if (pair := summands(node)) is not None:
        return all(known.get(each, False) for each in pair)
    if node.target is torch.cat and isinstance(node.args[0], list | tuple):
        return all(known.get(each, False) for each in node.args[0])
    names: Any = _KEEPING_FUNCTIONS if node.op == "call_function" else _KEEPING_METHODS
    is_same = (
        len(node.args) < 7  # the seventh is one of these, which torch.fx writes down at their defaults too
        and node.kwargs.get("divisor_override") is None
        and node.kwargs.get("return_indices", False) is False
    )
    first = node.args[0] if node.args else None
    return node.target in names and is_same and isinstance(first, Node) and known.get(first, False)
