"""An exponential moving average of the weights, which evaluations use instead of the current ones.

Running statistics do not fit averaged weights: `evaluation.evaluated` recomputes them. If parameters or
momentum are sharded, so is the average: each rank averages its shards, which are gathered for evaluations and
checkpoints.
"""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from addertrain.train.module import AdderClassifier
from addertrain.train.strategies.checkpoint_io import AVERAGE
from addertrain.train.strategies.sharded import Sharded


def decay_at(step: int, decay: float) -> float:
    """min(decay, (1 + step) / (10 + step)): the random first weights lose their influence quickly."""
    return min(decay, (1 + step) / (10 + step))


class WeightAverage(Callback):
    """After step t: average = d_t * average + (1 - d_t) * weights, d_t of `decay_at`; starts at the weights.

    A skipped step counts like any other, with unchanged weights.

    Args:
        decay: in 0 .. 1; the average covers about 1 / (1 - decay) steps.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._loaded: Mapping[str, Tensor] | None = None
        self._sharded: Sharded | None = None
        self._names: list[str] = []
        self._weights: list[Tensor] = []
        self._average: list[Tensor] = []
        self._num_steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the average."""
        self._connect(trainer, pl_module)
        self._num_steps = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates the average after an optimizer step."""
        if trainer.global_step > self._num_steps:
            self._num_steps = trainer.global_step
            torch._foreach_lerp_(self._average, self._weights, 1.0 - decay_at(self._num_steps, self.decay))

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the average by parameter name; unsharded on the first rank, which writes it."""
        checkpoint[AVERAGE] = self._whole(keep=trainer.is_global_zero)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Loads a checkpoint's average."""
        self._loaded = checkpoint[AVERAGE]

    def whole(self) -> dict[str, Tensor]:
        """The average by the model's parameter names, for an evaluation within a training; a collective."""
        return self._whole(keep=True)

    def _connect(self, trainer: Trainer, module: LightningModule) -> None:
        """Finds the weights, once they are on their device and sharded."""
        if self._weights:
            return
        assert isinstance(module, AdderClassifier)
        strategy = trainer.strategy
        if isinstance(strategy, Sharded) and trainer.state.fn == TrainerFn.FITTING:
            self._sharded, self._weights = strategy, strategy.parts()
        else:
            named = dict(module.model.named_parameters())
            self._names, self._weights = list(named), [weight.detach() for weight in named.values()]
        self._average = [weight.clone() for weight in self._weights]
        if self._loaded is not None:
            if self._sharded is not None:
                self._sharded.split_(self._average, self._loaded)
            else:
                for average, name in zip(self._average, self._names, strict=True):
                    average.copy_(self._loaded[name])
            self._loaded = None

    def _whole(self, *, keep: bool) -> dict[str, Tensor]:
        """The average by the model's parameter names; a collective if it is sharded."""
        if self._sharded is not None:
            return self._sharded.joined(self._average, keep=keep)
        return dict(zip(self._names, self._average, strict=True))
