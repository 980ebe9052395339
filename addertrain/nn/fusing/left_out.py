"""Says for each norm, and for each sum after one, why it is in no chain."""

from torch import nn
from torch.fx import Graph, Node

from addertrain.nn.fusing.chains import (
    Chain,
    GraphsOf,
    candidates,
    hazard,
    is_norm,
    only_user,
    other_summand,
    past_identities,
)  # fmt: skip
from addertrain.nn.fusing.nodes import called, is_relu, summands

Reasons = dict[nn.BatchNorm2d, str]


def why_left(
    graph: Graph, owner: nn.Module, chains: list[Chain], graphs_of: GraphsOf
) -> tuple[Reasons, Reasons]:
    """The reasons for norms that are computed alone, and for sums that are not fused with their norm."""
    norms: Reasons = {}
    ends: Reasons = {}
    fused = {chain.norm for chain in chains}
    sums = {chain.sum for chain in chains}
    for node in graph.nodes:
        norm = owner.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        hazards = []
        if called(node, owner) is norm and is_norm(norm):
            hazards = [hazard(chain, graph, owner, graphs_of) for chain in candidates(node, norm, owner)]
        if norm not in fused:
            norms[norm] = _why_alone(node, norm, owner, hazards)
        result = (node, *past_identities(node, owner)[0])[-1]
        added = next((user for user in result.users if summands(user) is not None), None)
        if added is not None and added not in sums:
            ends[norm] = _why_no_end(result, added, owner, hazards)
    return norms, ends


def _why_alone(node: Node, norm: nn.BatchNorm2d, owner: nn.Module, hazards: list[str]) -> str:
    if called(node, owner) is None:
        return "it is not called with one tensor alone"
    if not is_norm(norm):
        return "a norm of another class, or without weight and bias, has no fused form"
    if not hazards:
        return "it is not the only reader of an adder layer, and no ReLU is its only reader"
    return next(filter(None, hazards), "its neighbours are fused with another norm")


def _why_no_end(result: Node, added: Node, owner: nn.Module, hazards: list[str]) -> str:
    if len(result.users) > 1:
        return "the norm's result is read more than once"
    if other_summand(added, result) is None:
        return "the sum writes into the other tensor"
    reader = only_user((added, *past_identities(added, owner)[0])[-1])
    if reader is None:
        return "the sum is read more than once, or is the result"
    if not is_relu(reader, owner):
        return "no ReLU reads the sum"
    return next(filter(None, hazards), "the norm has no fused form")
