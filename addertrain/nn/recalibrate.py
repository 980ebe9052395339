"""Recomputes running statistics for evaluation, within a `with` block.

BatchNorm's running means lag behind adder filters, which move further per step than a convolution's; in
mid-training a network read with them looks far worse than it is. Training's own buffers are restored bit for
bit.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from addertrain.nn.norm import FrozenBatchNorm2d
from addertrain.nn.sync_norm import SyncBatchNorm2d


@contextmanager
def recalibrated(
    model: nn.Module, batches: Iterable[Any], *, group: dist.ProcessGroup | None = None
) -> Iterator[None]:
    """Evaluate with running statistics recomputed on `batches`: the mean of each batch's mean and variance.

    The batches, inputs as the model takes them in evaluation, pass through once without gradients; norms
    normalise by the batch, as in training, and everything else (dropout) behaves as in evaluation. Inside the
    block the model keeps its mode. Frozen norms keep their statistics, which are part of the network; a model
    without other running statistics is not changed.

    Args:
        group: pool over its ranks, each giving its own batches; all of them must enter.

    Raises:
        ValueError: if no rank gave a batch.
    """
    with recomputed(model, _tracking_norms(model), batches, group):
        yield


@contextmanager
def recomputed(
    model: nn.Module, norms: list[_BatchNorm], batches: Iterable[Any], group: dist.ProcessGroup | None
) -> Iterator[None]:
    """`recalibrated`, for these norms of the model."""
    with _live_buffers_kept(norms):
        if norms:
            _recompute(model, norms, batches, group)
        yield


@contextmanager
def average_buffers(model: nn.Module, group: dist.ProcessGroup | None) -> Iterator[None]:
    """Evaluate with the mean of all ranks' running means and variances, so that every rank reads one network.

    With group=None, one process, the statistics stay as they are.
    """
    norms = _tracking_norms(model)
    with _live_buffers_kept(norms):
        if norms and group is not None:
            _store(_statistics(norms), norms, 1, group)
        yield


def _tracking_norms(model: nn.Module) -> list[_BatchNorm]:
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        and module.running_mean is not None
        and not isinstance(module, FrozenBatchNorm2d)
    ]


@contextmanager
def _live_buffers_kept(norms: list[_BatchNorm]) -> Iterator[None]:
    live = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    try:
        yield
    finally:
        for buffer, saved in live:
            buffer.copy_(saved)


@torch.no_grad()
def _recompute(
    model: nn.Module, norms: list[_BatchNorm], batches: Iterable[Any], group: dist.ProcessGroup | None
) -> None:
    for norm in norms:
        norm.reset_running_stats()  # a NaN of a diverged step would survive any averaging
    total = torch.zeros_like(_statistics(norms))
    num_batches = 0
    with _normalising_by_batch(model, norms):
        for batch in batches:
            model(batch)
            total += _statistics(norms)
            num_batches += 1
    _store(total, norms, num_batches, group)


@contextmanager
def _normalising_by_batch(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Norms in training mode with momentum 1, so that their buffers hold the last batch's statistics.

    momentum=None, torch's cumulative average, would wait for the device in every norm to read its counter.
    """
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    synchronised = [norm for norm in norms if isinstance(norm, SyncBatchNorm2d) and norm.is_synchronised]
    try:
        model.eval()
        for norm in norms:
            norm.training = True  # a frozen norm's train() would not do it
            norm.momentum = 1.0
        for norm in synchronised:
            norm.is_synchronised = False  # ranks pass different numbers of batches through
        yield
    finally:
        for module, is_training in modes.items():
            module.training = is_training
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for norm in synchronised:
            norm.is_synchronised = True


def _buffers(norms: list[_BatchNorm]) -> list[Tensor]:
    """Running means and variances, in the order of the norms."""
    pairs = [(norm.running_mean, norm.running_var) for norm in norms]
    return [buffer for pair in pairs for buffer in pair if buffer is not None]


def _statistics(norms: list[_BatchNorm]) -> Tensor:
    """All running means and variances in one float64 vector: float32 sums would depend on their order."""
    return torch.cat([buffer.double() for buffer in _buffers(norms)])


@torch.no_grad()
def _store(total: Tensor, norms: list[_BatchNorm], count: int, group: dist.ProcessGroup | None) -> None:
    """Write total / count, both summed over the group, into the running statistics."""
    pooled = torch.cat([total, total.new_tensor([count])])
    if group is not None:
        dist.all_reduce(pooled, group=group)
    if pooled[-1] == 0:
        raise ValueError(
            "recalibrated: expected at least one batch, got none; pass some batches of training inputs."
        )
    buffers = _buffers(norms)
    means = (pooled[:-1] / pooled[-1]).split([buffer.numel() for buffer in buffers])
    for buffer, mean in zip(buffers, means, strict=True):
        buffer.copy_(mean)
