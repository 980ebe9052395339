"""How an evaluation reads a network: the one procedure behind every accuracy, and every network handed on.

Evaluations while training, `evaluate`, `reproduce`, `report` and `ckpt convert` all go through `evaluated`.
Which weights, statistics and precision a recipe asks for is the callers' business, and so are Lightning's
hooks (`callbacks.evaluation`).
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
    """A network as it is evaluated, beside the live tensors that it will get back."""

    def __init__(self) -> None:
        self._changes: list[tuple[list[Tensor], list[Tensor]]] = []

    @contextmanager
    def as_trained(self) -> Iterator[None]:
        """Within an evaluation: live weights and live statistics, which is what the uncalibrated score reads.

        What was exchanged comes back bit for bit. Layers on bytes stay what they are.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def keep(self, live: list[Tensor], kept: list[Tensor]) -> None:
        """Notes that each tensor of `live` now holds other values than its partner in `kept`."""
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
    """While it lasts, `classifier.model` is as evaluations read it; then the live one is back, bit for bit.

    First come the weights, then layers on bytes, and last the statistics, which are made for what is there.
    If anything raises, on the way in or inside, the live network comes back all the same. Images are those
    of batches, on the classifier's device.

    Args:
        weights: averaged parameters by the model's names; None: the live ones. They hold the live values
            while the evaluation lasts.
        statistics: training images that BatchNorm's running statistics are recomputed on, pooled over the
            ranks; None: the mean of the ranks' statistics, as a checkpoint would hold them.
        int8: training images, the same on every rank, over whose range adder layers run on 8 bits; they are
            read twice. None: float32.

    Raises:
        ValueError: no rank has an image to recompute statistics on.
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
    """Gives each tensor of `live` the contents of its partner in `kept`, and the other way round."""
    if live:
        between = [tensor.clone() for tensor in live]
        torch._foreach_copy_(list(live), list(kept))
        torch._foreach_copy_(list(kept), between)
