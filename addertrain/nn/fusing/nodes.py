"""What single nodes of a followed graph are: ReLUs, sums, calls of modules, writes into their input."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Graph, Node

from addertrain.nn.adder import AdderConv2d, AdderLinear
from addertrain.nn.norm import BatchNorm2d
from addertrain.nn.transposed import AdderConvTranspose2d

_RELUS = (F.relu, F.relu_, torch.relu, torch.relu_)
_SUMS = (operator.add, operator.iadd, torch.add)
_IN_PLACE_OPERATORS = {
    "iadd", "iand", "iconcat", "ifloordiv", "ilshift", "imatmul", "imod", "imul", "ior", "ipow", "irshift",
    "isub", "itruediv", "ixor", "setitem", "delitem",
}  # fmt: skip
_FRESH = (
    AdderConv2d, AdderConvTranspose2d, AdderLinear, nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm2d,
    nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
)  # fmt: skip


def called(node: Node, owner: nn.Module) -> nn.Module | None:
    """The module that a node calls with one tensor and nothing else."""
    is_call = node.op == "call_module" and len(node.args) == 1 and not node.kwargs
    return owner.get_submodule(str(node.target)) if is_call and isinstance(node.args[0], Node) else None


def is_relu(node: Node, owner: nn.Module) -> bool:
    """Whether it is a ReLU, as a module, function or method; in place or not.

    clamp(min=0) is none: it lets the gradient of an input that is exactly 0 through, which a ReLU drops.
    """
    if node.op == "call_module":
        return type(called(node, owner)) is nn.ReLU
    if node.op == "call_function":
        return node.target in _RELUS
    return node.op == "call_method" and node.target in ("relu", "relu_")


def summands(node: Node) -> tuple[Node, Node] | None:
    """The two tensors of which a node is the plain sum."""
    is_sum = node.target in _SUMS if node.op == "call_function" else node.target in ("add", "add_")
    if node.op not in ("call_function", "call_method") or not is_sum or node.kwargs or len(node.args) != 2:
        return None
    first, second = node.args
    return (first, second) if isinstance(first, Node) and isinstance(second, Node) else None


def is_in_place(node: Node) -> bool:
    """Whether a function or method writes into a tensor that it is given, as far as its name says."""
    if node.op == "call_method":
        name = str(node.target)
    else:
        name = str(getattr(node.target, "__name__", ""))
        if getattr(node.target, "__module__", "") == "_operator" and name in _IN_PLACE_OPERATORS:
            return True
    is_told = node.kwargs.get("inplace", False) is not False or "out" in node.kwargs
    return (
        is_told or (name.endswith("_") and not name.endswith("__")) or any(arg is True for arg in node.args)
    )


def may_write(node: Node, owner: nn.Module, graphs_of: Callable[[nn.Module], list[Graph]]) -> bool:
    """Whether a node may write into a tensor that others read as well."""
    if node.op == "call_module":
        return may_write_inputs(owner.get_submodule(str(node.target)), graphs_of)
    if node.op == "call_function":
        return is_in_place(node) or not _is_known(node.target)
    return node.op == "call_method" and is_in_place(node)


def written(node: Node, owner: nn.Module, graphs_of: Callable[[nn.Module], list[Graph]]) -> list[Node]:
    """The nodes whose tensors it may write into: the first one for a method or an operator such as +=."""
    if not may_write(node, owner, graphs_of):
        return []
    is_first = node.op == "call_method" or getattr(node.target, "__module__", "") == "_operator"
    return [each for each in node.all_input_nodes if not is_first or each is node.args[0]]


def origins(
    node: Node,
    owner: nn.Module,
    graphs_of: Callable[[nn.Module], list[Graph]],
    known: Mapping[Node, frozenset[Node]],
) -> frozenset[Node]:
    """Nodes that made the tensors which a node's result may lie in, itself for a tensor of its own.

    Args:
        known: the origins of the nodes before it.
    """
    inputs = written(node, owner, graphs_of) or node.all_input_nodes
    if not inputs or is_fresh(node, owner):
        return frozenset((node,))
    return frozenset[Node]().union(*(known[each] for each in inputs))


def may_write_inputs(module: nn.Module, graphs_of: Callable[[nn.Module], list[Graph]]) -> bool:
    """Whether a module's call may write into what it is called with."""
    if is_leaf(module):
        return bool(getattr(module, "inplace", False))
    graphs = graphs_of(module)
    return not graphs or any(_writes_placeholder(graph, module, graphs_of) for graph in graphs)


def is_leaf(module: nn.Module) -> bool:
    """Whether it is torch's or ours and holds no other module: such write where `inplace` says so alone.

    Our norm may hold activations, which get a tensor of its own.
    """
    if isinstance(module, BatchNorm2d):
        return True
    package = type(module).__module__
    return package.startswith(("torch.nn.modules.", "addertrain.nn.")) and not module._modules


def _writes_placeholder(
    graph: Graph, owner: nn.Module, graphs_of: Callable[[nn.Module], list[Graph]]
) -> bool:
    may_be_input: set[Node] = set()
    for node in graph.nodes:
        if not may_be_input.isdisjoint(written(node, owner, graphs_of)):
            return True
        reads_one = not may_be_input.isdisjoint(node.all_input_nodes)
        if node.op == "placeholder" or (reads_one and not is_fresh(node, owner)):
            may_be_input.add(node)
    return False


def is_fresh(node: Node, owner: nn.Module) -> bool:
    """Whether its result is a tensor of its own, not its input or a view of that."""
    if node.op == "call_module":
        module = owner.get_submodule(str(node.target))
        return is_leaf(module) and isinstance(module, _FRESH) and not getattr(module, "inplace", False)
    pair = summands(node)
    return (pair is not None or is_relu(node, owner)) and not is_in_place(node)


def _is_known(function: Any) -> bool:
    """Whether it is Python's or torch's, whose names say what they write."""
    package = str(getattr(function, "__module__", "")).partition(".")[0]
    name = getattr(function, "__name__", "")
    return package in ("torch", "_operator", "builtins", "math") or getattr(torch, name, None) is function
