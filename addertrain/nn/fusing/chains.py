"""Finds layer, norm, sum and ReLU in a followed graph, and puts one call of `nn.adder_norm` in their place.

    norm(layer(x)), and with y = layer(x) or any other y: relu(norm(y)), relu(norm(y) + residual)

The call is placed where the last of them was. It computes the same if nothing else reads the results between
them, if layer and norm occur nowhere else, and if nothing in between writes into a tensor that they read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn
from torch.fx import Graph, Node

from addertrain.nn.adder import AdderConv2d
from addertrain.nn.adder_norm import adder_norm, adder_norm_residual, norm_relu, norm_residual_relu
from addertrain.nn.fusing.nodes import called, is_in_place, is_relu, may_write, summands
from addertrain.nn.norm import BatchNorm2d, FrozenBatchNorm2d
from addertrain.nn.sync_norm import SyncBatchNorm2d

GraphsOf = Callable[[nn.Module], list[Graph]]


@dataclass(frozen=True)
class Chain:
    """Nodes that one call replaces, first to last, and the modules that they call.

    Args:
        sum: what adds a residual to the norm's result, if a ReLU of the sum ends the chain.
        bypassed: modules that are no longer called: ReLUs and identities.
    """

    nodes: tuple[Node, ...]
    layer: AdderConv2d | None
    norm: nn.BatchNorm2d
    sum: Node | None
    has_relu: bool
    bypassed: tuple[nn.Module, ...]

    @property
    def residual(self) -> Node | None:
        """What the sum adds now: where it was the end of another chain, the call that replaced that."""
        pair = () if self.sum is None else summands(self.sum) or ()
        return next((node for node in pair if node not in self.nodes), None)


def find_chains(graph: Graph, owner: nn.Module, graphs_of: GraphsOf) -> list[Chain]:
    """Every chain of a graph that one call can replace; no two share a node."""
    chains: list[Chain] = []
    taken: set[Node] = set()
    for node in graph.nodes:
        norm = called(node, owner)
        if norm is None or not is_norm(norm):
            continue
        assert isinstance(norm, nn.BatchNorm2d)
        for chain in candidates(node, norm, owner):
            if taken.isdisjoint(chain.nodes) and not hazard(chain, graph, owner, graphs_of):
                taken.update(chain.nodes)
                chains.append(chain)
                break
    return chains


def is_norm(module: nn.Module) -> bool:
    """Whether it is our norm, or a norm of torch's that ours can replace."""
    return type(module) in (BatchNorm2d, SyncBatchNorm2d, FrozenBatchNorm2d) or is_torchs_norm(module)


def is_torchs_norm(module: nn.Module) -> bool:
    """Whether the norm is torch's, and ours can replace it.

    On CPUs torch's adds up channels-last images in float32: at a mean of 100, the variance of 3.2 million
    numbers of variance 1 comes out as 6.4.
    """
    return type(module) is nn.BatchNorm2d and module.affine


def put_call(chain: Chain, graph: Graph, owner: nn.Module) -> None:
    """Replaces a chain's last node by the call, and removes the others."""
    last = chain.nodes[-1]
    names = {module: name for name, module in owner.named_modules()}
    with graph.inserting_before(last):
        norm = graph.get_attr(names[chain.norm])
        layer = [] if chain.layer is None else [graph.get_attr(names[chain.layer])]
        residual = [] if chain.residual is None else [chain.residual]
        inputs = (*layer, norm, chain.nodes[0].args[0], *residual)
        if layer and not residual:
            call = graph.call_function(adder_norm, inputs, {"relu": True} if chain.has_relu else {})
        elif layer:
            call = graph.call_function(adder_norm_residual, inputs)
        else:
            call = graph.call_function(norm_residual_relu if residual else norm_relu, inputs)
    last.replace_all_uses_with(call)
    for node in reversed(chain.nodes):
        graph.erase_node(node)


def candidates(norm_node: Node, norm: nn.BatchNorm2d, owner: nn.Module) -> Iterator[Chain]:
    """The longest chain around a norm first."""
    before = norm_node.args[0]
    assert isinstance(before, Node)
    layer = called(before, owner)
    start: tuple[Node, ...] = (norm_node,)
    if isinstance(layer, AdderConv2d) and len(before.users) == 1:
        start = (before, norm_node)
    else:
        layer = None
    if getattr(norm, "then", ()):  # what follows is not the norm's result
        if layer is not None:
            yield Chain(start, layer, norm, None, False, ())
        return
    behind, bypassed = past_identities(norm_node, owner)
    nodes = (*start, *behind)
    end = only_user(nodes[-1])
    if end is not None and other_summand(end, nodes[-1]) is not None:
        more, also = past_identities(end, owner)
        relu = only_user((end, *more)[-1])
        if relu is not None and is_relu(relu, owner):
            all_nodes = (*nodes, end, *more, relu)
            yield Chain(all_nodes, layer, norm, end, True, (*bypassed, *also, *_module(relu, owner)))
    if end is not None and is_relu(end, owner):
        yield Chain((*nodes, end), layer, norm, None, True, (*bypassed, *_module(end, owner)))
    if layer is not None:
        yield Chain(start, layer, norm, None, False, ())


def only_user(node: Node) -> Node | None:
    """The only node that reads a node, or None."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def past_identities(node: Node, owner: nn.Module) -> tuple[tuple[Node, ...], tuple[nn.Module, ...]]:
    """The sequence of identities that alone read a node: nodes and modules."""
    nodes: list[Node] = []
    modules: list[nn.Module] = []
    while (following := only_user(node)) is not None and type(called(following, owner)) is nn.Identity:
        node = following
        nodes.append(node)
        modules += _module(node, owner)
    return tuple(nodes), tuple(modules)


def _module(node: Node, owner: nn.Module) -> tuple[nn.Module, ...]:
    module = called(node, owner)
    return () if module is None else (module,)


def other_summand(node: Node, norm_result: Node) -> Node | None:
    """What a sum adds to a norm's result; None if it writes into that other tensor."""
    pair = summands(node)
    if pair is None or pair[0] is pair[1]:
        return None
    if pair[0] is norm_result:
        return pair[1]
    return pair[0] if pair[1] is norm_result and not is_in_place(node) else None


def hazard(chain: Chain, graph: Graph, owner: nn.Module, graphs_of: GraphsOf) -> str:
    """Why one call would compute something else; empty if it would not."""
    nodes = list(graph.nodes)
    calls = [owner.get_submodule(str(node.target)) for node in nodes if node.op == "call_module"]
    own = [module for module in (chain.layer, chain.norm) if module is not None]
    if any(sum(any(part is module for part in call.modules()) for call in calls) != 1 for module in own):
        return "it or its layer is called more than once"
    held = [str(node.target).rpartition(".")[0] for node in nodes if node.op == "get_attr"]
    if any(owner.get_submodule(name) in own for name in held):
        return "the code reads its parameters or its layer's"
    between = nodes[nodes.index(chain.nodes[0]) : nodes.index(chain.nodes[-1])]
    if any(may_write(node, owner, graphs_of) for node in between if node not in chain.nodes):
        return "code between layer and ReLU may write into what they read"
    return ""
