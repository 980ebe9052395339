"""Prepares a network for evaluation; every reported accuracy and every exported network uses this procedure.

Evaluations during training, `evaluate`, `reproduce`, `report` and `ckpt convert` all use `evaluated`. The
callers decide on weights, statistics and precision, and `callbacks.evaluation` calls it from Lightning's
hooks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from addertrain.nn import average_buffers, recalibrated
from addertrain.nn.int8 import calibrate, in_int8
from addertrain.train.module import AdderClassifier


class Evaluated:
    """A network during an evaluation, with the live tensors that will be restored."""

    def __init__(self) -> None:
        self._changes: list[tuple[list[Tensor], list[Tensor]]] = []

    @contextmanager
    def as_trained(self) -> Iterator[None]:
        """Within an evaluation, restores live weights and statistics for the uncalibrated score;
        afterwards the evaluated ones are back bit for bit. 8-bit layers do not change.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def keep(self, live: list[Tensor], kept: list[Tensor]) -> None:
        """Records that each tensor of `live` now differs from its partner in `kept`."""
        self._changes.append((live, kept))

    def _exchange(self) -> None:
        for live, kept in self._changes:
            exchange(live, kept)


@contextmanager
def evaluated(
    classifier: AdderClassifier,
    *,
    weights: Mapping[str, Tensor] | None = None,
    statistics: Iterable[Tensor] | None = None,
    int8: Iterable[Tensor] | None = None,
) -> Iterator[Evaluated]:
    """Within the block, `classifier.model` is the network to evaluate; afterwards the live one is restored
    bit for bit. First the weights are installed, then 8-bit layers, and last the statistics are recomputed
    for them. After an error, too, the live network is restored. Images are on the classifier's device.

    Args:
        weights: averaged parameters by the model's names; None uses the live ones. They hold the live values
            during the evaluation.
        statistics: training images on which BatchNorm's running statistics are recomputed, pooled over the
            ranks; None uses the mean of the ranks' statistics, as in a checkpoint.
        int8: training images, the same on every rank, that calibrate adder layers in 8 bits; they are read
            twice. None uses float32.

    Raises:
        ValueError: no rank has images on which to recompute statistics.
    """
    model = classifier.model
    group = dist.group.WORLD if dist.is_initialized() and dist.get_world_size() > 1 else None
    network = Evaluated()
    with ExitStack() as changes:
        if weights is not None:
            changes.enter_context(_with_weights(classifier, weights, network))
        if int8 is not None:
            with recalibrated(model, _normalised(classifier, int8)):
                grids = calibrate(model, _normalised(classifier, int8))
            changes.enter_context(in_int8(model, grids))
        buffers = list(model.buffers())
        live_buffers = [buffer.clone() for buffer in buffers]
        if statistics is None:
            changes.enter_context(average_buffers(model, group))
        else:
            images = _normalised(classifier, statistics)
            changes.enter_context(recalibrated(model, images, group=group))
        network.keep(buffers, live_buffers)
        yield network


@contextmanager
def _with_weights(
    classifier: AdderClassifier, weights: Mapping[str, Tensor], network: Evaluated
) -> Iterator[None]:
    named = {name: weight.detach() for name, weight in classifier.model.named_parameters()}
    live, kept = list(named.values()), [weights[name].to(weight.device) for name, weight in named.items()]
    exchange(live, kept)
    network.keep(live, kept)
    try:
        yield
    finally:
        exchange(live, kept)


def _normalised(classifier: AdderClassifier, images: Iterable[Tensor]) -> Iterator[Tensor]:
    return (classifier.normalised(batch) for batch in images)


@torch.no_grad()
def exchange(live: Sequence[Tensor], kept: Sequence[Tensor]) -> None:
    """Exchanges the contents of each tensor of `live` with its partner in `kept`."""
    if live:
        between = [tensor.clone() for tensor in live]
        torch._foreach_copy_(list(live), list(kept))
        torch._foreach_copy_(list(kept), between)
