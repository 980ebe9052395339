"""Stops a training whose numbers are no longer finite, before the update that would spoil the weights.

What is wrong, and where, is `diagnosis`'s business; this file decides when to look.
"""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from addertrain.checkpoint.store import CheckpointStore
from addertrain.optim.shards import local
from addertrain.train.diagnosis import Finding, find
from addertrain.train.errors import NonFiniteError
from addertrain.train.module import AdderClassifier, LabelledImages

_SMALLEST_SCALE = 1.0


class FiniteGuard(Callback):
    """Looks at loss and gradients of every step once they are reduced, accumulated and unscaled.

    One flag is read per step, on a CPU at no cost; on a GPU the host waits for the backward pass, which a
    loss scaler does anyway. Under a scaler infinite gradients are its own business: it leaves that step out
    and halves its scale; only a bad loss, or a scale that has fallen below 1, ends the training.

    Args:
        store: whose newest checkpoint the message names.

    Raises:
        NonFiniteError: on every rank, from the trainer's `fit`; the weights are those before the step.
    """

    def __init__(self, store: CheckpointStore | None = None) -> None:
        self._store = store
        self._batches: list[tuple[int, LabelledImages]] = []
        self._is_finite: list[Tensor] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets what an earlier session left."""
        self._forget()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the batches of a step until the step is made."""
        self._batches.append((batch_idx, batch))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Notes whether the loss is finite, on its device."""
        self._is_finite.append(loss.detach().isfinite().all())

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Lets a sound step pass."""
        flags = list(self._is_finite)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is None:
            flags += _finite_gradients(optimizer)
        elif scaler.get_scale() < _SMALLEST_SCALE:
            flags.append(torch.zeros_like(flags[0]))
        if _all_over_ranks(torch.stack(flags)):
            self._forget()
            return
        assert isinstance(pl_module, AdderClassifier)
        with trainer.precision_plugin.forward_context():
            finding = find(pl_module, self._batches)
        raise NonFiniteError(self._message(trainer, _first_finding(finding)))

    def _forget(self) -> None:
        self._batches.clear()
        self._is_finite.clear()

    def _message(self, trainer: Trainer, finding: Finding) -> str:
        newest = self._store.newest_first() if self._store is not None else []
        kept = f"the last good checkpoint is {newest[0].name}" if newest else "there is no checkpoint yet"
        return (
            f"training: expected finite numbers, got {finding.what} in epoch {trainer.current_epoch + 1}, "
            f"{finding.where}, step {trainer.global_step + 1}; that step was not made, {kept}: mend the data "
            "and start again, or lower optim.lr for a new run"
        )


def _finite_gradients(optimizer: Optimizer) -> list[Tensor]:
    """One flag over all gradients that lie here; a norm that overflows counts as not finite."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    grads = [local(param.grad) for param in params if param.grad is not None]
    if not grads:
        return []  # an engine keeps them elsewhere; a bad loss still shows
    dtype = torch.promote_types(grads[0].dtype, torch.float32)
    return [torch.stack(torch._foreach_norm(grads, 2, dtype=dtype)).isfinite().all()]


def _all_over_ranks(flags: Tensor) -> bool:
    """Whether every flag is set on every rank: all of them have to stop together."""
    is_fine = flags.all().float()
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(is_fine, op=dist.ReduceOp.MIN)
    return bool(is_fine)


def _first_finding(own: Finding) -> Finding:
    """The clearest of all ranks' findings, the first rank's where several are as clear."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return own
    findings: list[Finding] = [own] * dist.get_world_size()
    dist.all_gather_object(findings, own)
    rank, clearest = min(enumerate(findings), key=lambda pair: pair[1].depth)
    return Finding(clearest.what, f"{clearest.where} of rank {rank}", clearest.depth)
