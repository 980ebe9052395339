"""Records the inputs of a trained network's layers while test images pass through it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from addertrain.data import ImageData, build_loader
from addertrain.models.operations import OperationCount
from addertrain.report.runs import Run
from addertrain.train.trained import trained_classifier

_MAX_IMAGES = 5000
# What a core gets done in some seconds; and never fewer images than say something.
_MAX_PAIRS = 2 * 10**11
_MIN_IMAGES = 256


@dataclass(frozen=True, eq=False)
class LayerInput:
    """The inputs of one layer over all images: the fraction of exact zeros, and each channel's extremes
    [C].
    """

    zeros: float
    lowest: Tensor
    highest: Tensor


@dataclass(frozen=True, eq=False)
class Observation:
    """The inputs of all layers for the first `num_images` test images, in the order of the layers.

    `last_input` [N, 2] and `labels` [N] are for a network whose last layer has two inputs, which can be
    plotted.
    """

    num_images: int
    inputs: dict[str, LayerInput]
    labels: Tensor
    last_input: Tensor | None


@torch.no_grad()
def observe(run: Run, data: ImageData, count: OperationCount) -> Observation:
    """Passes test images through the network as in an evaluation, as many as a core processes in seconds."""
    assert run.checkpoint is not None
    module = trained_classifier(run.checkpoint, run.recipe, data)
    wanted = min(_MAX_IMAGES, max(_MIN_IMAGES, _MAX_PAIRS // sum(layer.pairs for layer in count.layers)))
    tallies = {layer.name: _Tally() for layer in count.layers}
    for name, tally in tallies.items():
        module.model.get_submodule(name).register_forward_pre_hook(tally)
    last = _Keep()
    if is_two_wide := _num_inputs(module.model, count) == 2:
        module.model.get_submodule(count.layers[-1].name).register_forward_pre_hook(last)
    labels: list[Tensor] = []
    loader = build_loader(data, run.recipe.data, training=False, seed=run.seed)
    try:
        for batch in loader:
            module(batch.images)
            labels.append(batch.labels)
            if sum(map(len, labels)) >= wanted:
                break
    finally:
        loader.close()
    return Observation(
        sum(map(len, labels)),
        {name: tally.result() for name, tally in tallies.items()},
        torch.cat(labels),
        torch.cat(last.seen) if is_two_wide else None,
    )


def _num_inputs(model: nn.Module, count: OperationCount) -> int:
    """Elements that one output of the last layer reads."""
    return model.get_submodule(count.layers[-1].name).get_parameter("weight")[0].numel()


class _Keep:
    """A hook that keeps a layer's inputs, (N, C)."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.seen.append(arguments[0].flatten(1))


class _Tally:
    """A hook that counts zeros and keeps extremes of a layer's inputs, (N, C, H, W) or (N, C)."""

    def __init__(self) -> None:
        self._num_zeros = self._numel = 0
        self._lowest: Tensor | None = None
        self._highest: Tensor | None = None

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        x = arguments[0]
        others = [dim for dim in range(x.dim()) if dim != 1]
        lowest, highest = x.amin(others), x.amax(others)
        self._num_zeros += int((x == 0).sum())
        self._numel += x.numel()
        self._lowest = lowest if self._lowest is None else torch.minimum(self._lowest, lowest)
        self._highest = highest if self._highest is None else torch.maximum(self._highest, highest)

    def result(self) -> LayerInput:
        """The result over all images."""
        assert self._lowest is not None
        assert self._highest is not None
        return LayerInput(self._num_zeros / self._numel, self._lowest, self._highest)
