"""Diagnoses a step whose loss or gradient is not finite: finds the first bad layer and the images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from addertrain.train.batches import LabelledImages
from addertrain.train.loss import classification_loss
from addertrain.train.module import AdderClassifier

_MAX_IMAGES = 5
_IN_FORWARD, _IN_LOSS, _IN_BACKWARD, _NOWHERE = range(4)


@dataclass(frozen=True)
class Finding:
    """`what` is not finite, in which batch (`where`), and how late in a step it occurs (`depth`, lowest
    first).
    """

    what: str
    where: str
    depth: tuple[int, int]


def clearest(findings: Sequence[Finding]) -> Finding:
    """The finding that occurs earliest in a step, of all ranks in their order; it names the rank, except
    for gradients, which are the mean over all ranks.
    """
    rank, found = min(enumerate(findings), key=lambda pair: pair[1].depth)
    if found.depth[0] == _IN_BACKWARD:
        return found
    return Finding(found.what, f"{found.where} of rank {rank}", found.depth)


@dataclass(frozen=True)
class BadGradient:
    """A parameter whose gradient is not finite, and how many parameters come before it in the module."""

    place: int
    name: str
    kind: str


def bad_gradients(module: AdderClassifier, norms: Mapping[int, Tensor]) -> list[BadGradient]:
    """The bad ones among a step's gradients, or this rank's shards of them; `norms` are keyed by
    parameters' ids.
    """
    found = []
    for place, (name, parameter) in enumerate(module.named_parameters()):
        norm = norms.get(id(parameter))
        if norm is not None and not norm.isfinite():
            found.append(BadGradient(place, name.removeprefix(module.checkpoint_prefix), _bad_kind(norm)))
    return found


def find(
    module: AdderClassifier,
    batches: Sequence[tuple[int, LabelledImages]],
    gradients: Sequence["BadGradient"] = (),
) -> Finding:
    """Repeats the forward pass of a step's batches without gradients, and looks for values that are not
    finite. Every rank repeats all of its batches, because synchronised norms communicate.

    Args:
        batches: (number in the epoch, batch) of every micro-batch of the step.
        gradients: what `bad_gradients` found.
    """
    found = [_find_forward(module, number, batch) for number, batch in batches]
    if finding := next((each for each in found if each is not None), None):
        return finding
    where = _name_batches([number for number, _ in batches])
    if not gradients:  # if they are sharded, another rank has the bad shard
        return Finding("no such number when repeated", where, (_NOWHERE, 0))
    last = gradients[-1]  # which backward meets first
    return Finding(f"{last.kind} in the gradient of {last.name}", where, (_IN_BACKWARD, -last.place))


@torch.no_grad()
def _find_forward(module: AdderClassifier, number: int, batch: LabelledImages) -> Finding | None:
    images = module.normalised(batch.images)
    watch = _FirstBadOutput(module.model)
    with torch.compiler.set_stance("force_eager"), watch:
        logits = module.model(images)
    if (rows := _bad_rows(images)) is not None:
        return Finding(f"{_bad_kind(images)} in the images", _name(number, batch, rows), (_IN_FORWARD, 0))
    if watch.found is not None:
        what, rows = watch.found
        return Finding(what, _name(number, batch, rows), (_IN_FORWARD, 0))
    loss = classification_loss(logits, batch.labels)
    if not loss.isfinite():
        rows = _bad_rows(batch.labels)
        return Finding(f"{_bad_kind(loss)} in the loss", _name(number, batch, rows), (_IN_LOSS, 0))
    return None


class _FirstBadOutput:
    """While active, records the first layer of `model` whose output is not finite, and the bad rows."""

    def __init__(self, model: nn.Module) -> None:
        self.found: tuple[str, Tensor | None] | None = None
        self._leaves = [(name, leaf) for name, leaf in model.named_modules() if not list(leaf.children())]
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        self._handles = [leaf.register_forward_hook(self._hook(name)) for name, leaf in self._leaves]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(layer: nn.Module, inputs: Any, output: Any) -> None:
            if self.found is not None or not isinstance(output, Tensor):
                return
            if (rows := _bad_rows(output)) is not None:
                what = f"{_bad_kind(output)} in the output of {name} ({type(layer).__name__})"
                self.found = what, rows

        return look


def _bad_rows(tensor: Tensor) -> Tensor | None:
    """Indices along the first dimension of values that are not finite; None if all are."""
    if not tensor.is_floating_point():
        return None
    is_bad = ~tensor.isfinite().flatten(1).all(1)
    return is_bad.nonzero().flatten() if is_bad.any() else None


def _bad_kind(tensor: Tensor) -> str:
    return "NaN" if tensor.isnan().any() else "infinity"


def _name(number: int, batch: LabelledImages, rows: Tensor | None) -> str:
    """The batch, and the numbers of the bad images in the data set if the loader gives them."""
    samples = getattr(batch, "samples", None)
    where = _name_batches([number])
    if rows is None or samples is None or len(rows) == len(batch.images):
        return where
    images = samples[rows.to(samples.device)].tolist()
    text = ", ".join(map(str, images[:_MAX_IMAGES])) + (", ..." if len(images) > _MAX_IMAGES else "")
    return f"{where} (image{'s' if len(images) > 1 else ''} {text})"


def _name_batches(numbers: Sequence[int]) -> str:
    first, last = numbers[0] + 1, numbers[-1] + 1
    return f"batch {first}" if first == last else f"batches {first} to {last}"
