"""Keeps steps with a non-finite loss or gradient from changing the weights, and decides what follows.

What is wrong, and where, is `diagnosis`'s business; the optimizer leaves the step out (`is_sound`); this file
says when to look and what follows.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from addertrain.errors import GoBack, NonFiniteError
from addertrain.optim import AdderOptimizer
from addertrain.recipe import TrainRecipe
from addertrain.train.batches import LabelledImages
from addertrain.train.callbacks.diagnosis import Finding, bad_gradients, clearest, find
from addertrain.train.callbacks.forward_state import ForwardState
from addertrain.train.callbacks.saving import SaveCheckpoints
from addertrain.train.callbacks.stateful import StatefulCallback
from addertrain.train.module import AdderClassifier
from addertrain.train.strategies.sharded import gradients_of, whole_network

Policy = Literal["stop", "skip", "rollback"]
FAULTS = "faults"
_SMALLEST_SCALE = 1.0


class FiniteGuard(StatefulCallback):
    """Checks loss and gradients of every step after they are reduced, accumulated and unscaled.

    The verdict is one flag on the device, the same on all ranks, and the optimizer obeys it there: a bad step
    changes neither weights nor momentum. The host reads it at once on a CPU; on a GPU a step later, so that
    no step waits for it, and in any case before a checkpoint. Under a loss scaler infinite gradients are
    handled by the scaler, which skips the step and halves its scale; only a bad loss, or a scale that has
    fallen below 1, is a fault.

    Args:
        saves: the callback that writes checkpoints, whose newest one the messages name.
        policy: "stop" raises; "skip" continues with the previous statistics and counts; "rollback" asks for
            the last checkpoint. Schedule, step number and averaged weights count a skipped step as made.
        limit: how many steps may be skipped, or rollbacks made, before it raises.
        rollbacks: those so far, of which a checkpoint may have recorded fewer.
        warn: receives one line on the first rank for every skipped step.
        delay: after how many steps a verdict is read; None: 0 on CPUs, 1 on GPUs.

    Raises:
        NonFiniteError, GoBack: on every rank, from the trainer's `fit`; the step was not made.
    """

    state_name = FAULTS

    def __init__(
        self,
        saves: SaveCheckpoints | None = None,
        *,
        policy: Policy = "stop",
        limit: int = 0,
        rollbacks: int = 0,
        warn: Callable[[str], None] = print,
        delay: int | None = None,
    ) -> None:
        self.skipped_steps, self.rollbacks = 0, rollbacks
        self._saves, self._policy, self._limit, self._warn, self._delay = saves, policy, limit, warn, delay
        self._batches: list[tuple[int, LabelledImages]] = []
        self._is_finite: list[Tensor] = []
        self._before: ForwardState | None = None
        self._pending: deque[_Step] = deque()

    @classmethod
    def of(
        cls, train: TrainRecipe, saves: SaveCheckpoints, *, rollbacks: int, warn: Callable[[str], None]
    ) -> "FiniteGuard":
        """Builds the guard of a recipe."""
        return cls(
            saves, policy=train.on_nonfinite, limit=train.nonfinite_limit, rollbacks=rollbacks, warn=warn
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the steps of an earlier session."""
        self._begin_step()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the batches of a step, and the state that they change, until its verdict is read."""
        if self._policy == "skip" and not self._batches:
            assert isinstance(pl_module, AdderClassifier)
            self._before = ForwardState(pl_module)
        self._batches.append((batch_idx, batch))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Records whether the loss is finite, on its device."""
        self._is_finite.append(loss.detach().isfinite().all())

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Lets the optimizer make a step only if it is finite, and reads the verdicts that are due."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        is_scale_fine = scaler is None or scaler.get_scale() >= _SMALLEST_SCALE
        norms: dict[int, Tensor] = {}
        if scaler is None or not is_scale_fine:
            gradients = gradients_of(trainer, optimizer)
            if (all_norms := gradients.norms()) is not None:
                self._is_finite.append(all_norms.isfinite().all())
                norms = dict(zip(map(id, gradients.parameters), all_norms.unbind(), strict=True))
        is_sound = _agreed(torch.stack(self._is_finite), is_scale_fine)
        if isinstance(optimizer, AdderOptimizer):
            optimizer.is_sound = is_sound
        if self._before is not None:
            self._before.put_back_unless(is_sound)
        verdict = _Arriving(is_sound)
        self._pending.append(
            _Step(trainer.current_epoch + 1, trainer.global_step + 1, self._batches, norms, verdict)
        )
        self._begin_step()
        delay = int(is_sound.is_cuda) if self._delay is None else self._delay
        self._read(trainer, pl_module, all_but=delay)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Reads all verdicts at the end of an epoch."""
        if trainer.is_last_batch:
            self._read(trainer, pl_module, all_but=0)

    def kept_state(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        """The numbers of skipped steps and rollbacks, including the last step."""
        self._read(trainer, module, all_but=0)
        return {"skipped_steps": self.skipped_steps, "rollbacks": self.rollbacks}

    def take_up(self, state: dict[str, Any]) -> None:
        """Continues counting."""
        self.skipped_steps = state["skipped_steps"]
        self.rollbacks = max(self.rollbacks, state["rollbacks"])

    def _begin_step(self) -> None:
        self._batches, self._is_finite, self._before = [], [], None

    def _read(self, trainer: Trainer, module: LightningModule, *, all_but: int) -> None:
        """Reads all verdicts but the last few; every rank reads the same ones at the same time."""
        while len(self._pending) > all_but:
            step = self._pending.popleft()
            if not step.is_sound.read():
                assert isinstance(module, AdderClassifier)
                self._answer(trainer, self._describe(trainer, module, step))

    def _describe(self, trainer: Trainer, module: AdderClassifier, step: "_Step") -> str:
        before, names = ForwardState(module), bad_gradients(module, step.norms)
        with trainer.precision_plugin.forward_context(), whole_network(trainer):
            finding = _over_ranks(find(module, step.batches, names))
        before.put_back()
        return (
            f"training: expected finite numbers, got {finding.what} in epoch {step.epoch}, {finding.where}, "
            f"step {step.number}"
        )

    def _answer(self, trainer: Trainer, found: str) -> None:
        kept = self._last_checkpoint()
        advice = (
            "correct the data and start again, or lower optim.lr in a new run; see "
            "docs/troubleshooting.md#nan-or-infinite-loss"
        )
        so_far = self.skipped_steps if self._policy == "skip" else self.rollbacks
        if self._policy == "stop":
            raise NonFiniteError(f"{found}; the step was not made, and {kept}; {advice}")
        if so_far >= self._limit:
            raise NonFiniteError(
                f"{found}; the step was not made, because train.nonfinite_limit ({self._limit}) is reached, "
                f"and {kept}; {advice}"
            )
        count = f"{so_far + 1} of at most {self._limit}"
        if self._policy == "rollback":
            raise GoBack(
                f"{found}; {kept}; training rolls back and continues in another order ({count})",
                so_far + 1,
            )
        self.skipped_steps += 1
        if trainer.is_global_zero:
            self._warn(f"{found}; the step is skipped ({count})")

    def _last_checkpoint(self) -> str:
        if self._saves is None:  # the trainer of a user's own may save by other means
            return "the weights are those before it"
        self._saves.finish()
        if newest := self._saves.newest:
            return f"the last good checkpoint is {newest.name}"
        return "there is no checkpoint yet"


class _Arriving:
    """A flag that is copied from the device to the host."""

    def __init__(self, flag: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._flag = flag
        if flag.is_cuda:
            self._flag = torch.empty((), dtype=flag.dtype, pin_memory=True)
            self._flag.copy_(flag, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> bool:
        """The flag; waits for it if it has not arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._flag)


@dataclass(frozen=True)
class _Step:
    """A step that was made or skipped, with what is needed to explain it; `norms` by parameters' ids."""

    epoch: int
    number: int
    batches: list[tuple[int, LabelledImages]]
    norms: dict[int, Tensor]
    is_sound: _Arriving


def _agreed(flags: Tensor, is_host_fine: bool) -> Tensor:
    """Whether every flag is set on every rank, on the device: because all ranks have to do the same."""
    is_fine = (flags.all() if is_host_fine else torch.zeros((), device=flags.device)).int()  # MIN loses a NaN
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(is_fine, op=dist.ReduceOp.MIN)
    return is_fine > 0


def _over_ranks(own: Finding) -> Finding:
    """The clearest of all ranks' findings, the first rank's if several are equally clear."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return own
    findings: list[Finding] = [own] * dist.get_world_size()
    dist.all_gather_object(findings, own)
    return clearest(findings)
