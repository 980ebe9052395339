"""Gives a network of your own the fast path of the networks here, without changes to its code or names.

The code of each module is followed with torch.fx (`fusing.follow`), not by a recorded run of hooks and
tensors' identities: an example takes one branch and says nothing of the other ones, while torch.fx stops
where control flow depends on a tensor. It goes module by module, so that one that cannot be followed stays as
it is and modules inside it are still found. The example then confirms the findings on real numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph
from torch.utils._pytree import tree_leaves

from addertrain.nn.conversion import Fusion
from addertrain.nn.fusing.chains import Chain, find_chains, is_torchs_norm, put_call
from addertrain.nn.fusing.follow import Followed, NotFollowedError, first_line, follow
from addertrain.nn.fusing.forward import Program, lay_on, take_off
from addertrain.nn.fusing.left_out import why_left
from addertrain.nn.fusing.nodes import is_leaf
from addertrain.nn.fusing.rectification import Rectification
from addertrain.nn.kinds import AdderLayer, SpatialAdder
from addertrain.nn.norm import take_over

Example = Tensor | tuple[Any, ...]


def fuse(model: nn.Module, example: Example) -> Fusion:
    """Finds in `model` what can be computed in fewer passes, and changes the model to do so, in place.

    - An adder layer that reads what a ReLU let through (also pooled, added, joined) becomes `rectified`.
    - norm(layer(x)), with a ReLU behind it or without, and relu(norm(y) + residual) become one call each
      where nobody else reads what is between them; torch's BatchNorm2d becomes `addertrain.nn.BatchNorm2d`.

    Names of parameters and buffers stay, so that checkpoints load before and after; hooks stay too, and
    modules get a subclass of their class. Values stay but for rounding: gradients behind a ReLU add the same
    terms in another order. Where the network is altered later (a flag that its code reads, a submodule, a
    hook on a module that would be skipped), its own code runs again by itself. A layer that later no longer
    reads a ReLU needs `layer.rectified = False`.

    Args:
        example: a batch, or a tuple of the model's arguments, which passes through twice in evaluation. On
            the meta device shapes alone confirm what was found.

    Raises:
        ValueError: if the network raises an error on the example.
        RuntimeError: if the fused network's result differs on the example. After every error the network is
            as it was before.
    """
    with _restored_on_error(model):
        for module in model.modules():
            take_off(module)
        analysis = _Analysis(model)
        with _unexpected_calls(model, analysis) as unexpected:
            before = _taken(model, example)
        unproved = Rectification(analysis.graphs_of, analysis.names).of(model)
        for layer in unexpected:
            reason = "the example gave it a negative number, or code that cannot be followed calls it"
            unproved[layer] = unproved.get(layer) or reason
        _alter(analysis, {layer for layer, reason in unproved.items() if not reason})
        if not _are_close(before, _evaluated(model, example)):
            raise RuntimeError(
                "fuse: expected the fused network to give the same result on the example, got another one; "
                "the network was left unchanged."
            )
    return analysis.report(unproved)


class _Analysis:
    """The code of a network's modules, and the chains in it."""

    def __init__(self, model: nn.Module) -> None:
        self.names = {module: name for name, module in model.named_modules()}
        self._followed: dict[nn.Module, list[Followed]] = {}
        self._reasons: dict[nn.Module, str] = {}
        self.chains = {
            module: [find_chains(each.graph, module, self.graphs_of) for each in self.followed(module)]
            for module in self.names
            if not is_leaf(module) and type(module).forward is not nn.Module.forward  # no list of modules
        }
        self.left_norms: dict[nn.BatchNorm2d, str] = {}
        self.left_ends: dict[nn.BatchNorm2d, str] = {}
        for module, of_modes in self.chains.items():
            for each, chains in zip(self.followed(module), of_modes, strict=True):
                norms, ends = why_left(each.graph, module, chains, self.graphs_of)
                self.left_norms |= norms
                self.left_ends |= ends

    def followed(self, module: nn.Module) -> list[Followed]:
        """What the module's code does; nothing where it cannot be followed."""
        if module not in self._followed:
            try:
                self._followed[module] = follow(module)
            except NotFollowedError as reason:
                self._followed[module] = []
                self._reasons[module] = str(reason)
        return self._followed[module]

    def graphs_of(self, module: nn.Module) -> list[Graph]:
        """The same as graphs: one, or one for training and one for evaluation."""
        return [each.graph for each in self.followed(module)]

    def calls(self, owner: nn.Module, layer: SpatialAdder) -> bool:
        """Whether the owner's code was seen to call the layer."""
        nodes = [node for graph in self.graphs_of(owner) for node in graph.nodes if node.op == "call_module"]
        return any(owner.get_submodule(str(node.target)) is layer for node in nodes)

    def norms(self, *, at_block_ends: bool = False) -> list[nn.BatchNorm2d]:
        """Those in a chain, in the network's order."""
        chains = [chain for of_modes in self.chains.values() for chains in of_modes for chain in chains]
        found = {chain.norm for chain in chains if chain.sum is not None or not at_block_ends}
        return [module for module in self.names if module in found]

    def report(self, unproved: dict[SpatialAdder, str]) -> Fusion:
        """What was found and what was left out, by the modules' names.

        Args:
            unproved: why a layer is not known to read a ReLU, for those of which it is not.
        """
        reasons = {
            self.names[module]: reason
            for module, reason in self._reasons.items()
            if any(isinstance(each, SpatialAdder) for each in module.modules())
        }
        layers = [module for module in self.names if isinstance(module, SpatialAdder)]
        fused, ends = self.norms(), self.norms(at_block_ends=True)
        nobody = "no code that could be followed calls it"
        norms = [
            module for module in self.names if isinstance(module, nn.BatchNorm2d) and module not in fused
        ]
        return Fusion(
            layers={self.names[layer]: layer.rectified for layer in layers},
            norms=tuple(self.names[norm] for norm in fused),
            block_ends=tuple(self.names[norm] for norm in ends),
            not_followed=reasons,
            layers_left={
                self.names[each]: unproved.get(each, nobody) for each in layers if not each.rectified
            },
            norms_left={self.names[norm]: self.left_norms.get(norm, nobody) for norm in norms},
            block_ends_left={
                self.names[norm]: reason for norm, reason in self.left_ends.items() if norm not in ends
            },
        )


def _alter(analysis: _Analysis, rectified: set[SpatialAdder]) -> None:
    """Makes the network the fused one."""
    for norm in filter(is_torchs_norm, analysis.norms()):
        take_over(norm)
    for layer in rectified:
        layer.rectified = True
    for module, of_modes in analysis.chains.items():
        programs = [
            _program(module, followed, chains)
            for followed, chains in zip(analysis.followed(module), of_modes, strict=True)
            if chains
        ]
        if programs:
            lay_on(module, programs)


@contextmanager
def _restored_on_error(model: nn.Module) -> Iterator[None]:
    """Restores everything that fusing changes (classes, flags and programs) if the block raises."""
    altered = ("relu", "then", "rectified", "_fused_programs")
    states = {
        module: (type(module), {name: vars(module)[name] for name in altered if name in vars(module)})
        for module in model.modules()
    }
    try:
        yield
    except BaseException:
        for module, (own, held) in states.items():
            module.__class__ = own
            for name in altered:
                vars(module).pop(name, None)
            vars(module).update(held)
        raise


def _program(module: nn.Module, followed: Followed, chains: list[Chain]) -> Program:
    for chain in chains:
        put_call(chain, followed.graph, module)
    return Program(followed, tuple(each for chain in chains for each in chain.bypassed))


def _taken(model: nn.Module, example: Example) -> list[Tensor]:
    """The tensors that the network itself returns for the example."""
    try:
        return _evaluated(model, example)
    except Exception as error:  # whatever its code raises
        shapes = [str(tuple(leaf.shape)) for leaf in tree_leaves(example) if isinstance(leaf, Tensor)]
        raise ValueError(
            f"fuse: expected an example that the network takes, got {' and '.join(shapes) or 'no tensor'}, "
            f"on which it raised {type(error).__name__}: {first_line(error)}; pass a batch like those of "
            "training, or a tuple of all arguments."
        ) from error


@torch.no_grad()
def _evaluated(model: nn.Module, example: Example) -> list[Tensor]:
    """The tensors that the model returns for the example."""
    inputs = example if isinstance(example, tuple) else (example,)
    with _as_it_was(model), torch.random.fork_rng(devices=[]):
        model.eval()
        return [leaf for leaf in tree_leaves(model(*inputs)) if isinstance(leaf, Tensor)]


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Restores the mode of every module, and whether its layers have been called."""
    modes = {module: module.training for module in model.modules()}
    calls = {layer: layer.was_called for layer in modes if isinstance(layer, AdderLayer)}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for layer, was_called in calls.items():
            layer.was_called = was_called


@contextmanager
def _unexpected_calls(model: nn.Module, analysis: _Analysis) -> Iterator[set[SpatialAdder]]:
    """Layers that are given a negative number, or are called by code that was not followed, in the block."""
    unexpected: set[SpatialAdder] = set()
    callers: list[nn.Module] = []

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, SpatialAdder):
            is_expected = bool(callers) and analysis.calls(callers[-1], module)
            if not is_expected or not inputs or _has_negatives(inputs[0]):
                unexpected.add(module)
        callers.append(module)

    def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        callers.pop()

    handles = [module.register_forward_pre_hook(enter) for module in model.modules()]
    handles += [module.register_forward_hook(leave) for module in model.modules()]
    try:
        yield unexpected
    finally:
        for handle in handles:
            handle.remove()


def _has_negatives(x: Tensor) -> bool:
    """Whether a number is below 0; tensors on the meta device have none to look at."""
    return not x.is_meta and bool((x < 0).any())


def _are_close(before: list[Tensor], after: list[Tensor]) -> bool:
    """Equal but for rounding: GPUs round what is one pass otherwise than what is three."""
    return len(before) == len(after) and all(map(_is_close, before, after))


def _is_close(before: Tensor, after: Tensor) -> bool:
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    if before.is_meta:
        return True
    if not before.is_floating_point() or before.numel() == 0:
        return torch.equal(before, after)
    tolerance = torch.finfo(before.dtype).eps ** 0.5 * float(before.abs().nan_to_num().max())
    return torch.allclose(before, after, rtol=0, atol=tolerance, equal_nan=True)
