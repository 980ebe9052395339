"""An exponential moving average of the weights, which evaluations read in place of the live ones.

Running statistics mean nothing to averaged weights, so it goes with `FreshStatistics`, which comes after it
in the trainer's list and recomputes them.
"""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from addertrain.train.checkpoint_io import AVERAGE
from addertrain.train.exchange import exchange
from addertrain.train.module import AdderClassifier


def decay_at(step: int, decay: float) -> float:
    """min(decay, (1 + step) / (10 + step)): the first weights, drawn at random, are soon forgotten."""
    return min(decay, (1 + step) / (10 + step))


class WeightAverage(Callback):
    """After step t: average = d_t * average + (1 - d_t) * weights, d_t of `decay_at`; starts at the weights.

    Args:
        decay: in 0 .. 1; 1 / (1 - decay) steps is how far back the average reaches.
        weights: an average to go on with, by the model's parameter names.
    """

    def __init__(self, decay: float, weights: Mapping[str, Tensor] | None = None) -> None:
        self.decay = decay
        self._loaded = dict(weights) if weights is not None else None
        self._names: list[str] = []
        self._weights: list[Tensor] = []
        self._average: list[Tensor] = []
        self._num_steps = 0
        self._is_swapped = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the average."""
        self._connect(pl_module)
        self._num_steps = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the average where a step was made."""
        if trainer.global_step > self._num_steps:
            self._num_steps = trainer.global_step
            torch._foreach_lerp_(self._average, self._weights, 1.0 - decay_at(self._num_steps, self.decay))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the average in."""
        self._connect(pl_module)
        self.swap()
        self._is_swapped = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the live weights back, bit for bit."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Puts the live weights back when an evaluation breaks off."""
        self._restore()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the average by parameter name."""
        checkpoint[AVERAGE] = dict(zip(self._names, self._average, strict=True))

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Goes on with a checkpoint's average."""
        self._loaded = checkpoint[AVERAGE]

    def swap(self) -> None:
        """Exchanges live and averaged weights, bit for bit; twice is nothing."""
        exchange(self._weights, self._average)

    def _connect(self, module: LightningModule) -> None:
        """Finds the weights, once they are on their device."""
        assert isinstance(module, AdderClassifier)
        named = dict(module.model.named_parameters())
        self._names, self._weights = list(named), [weight.detach() for weight in named.values()]
        if self._loaded is not None:
            loaded = self._loaded
            self._average = [
                torch.empty_like(weight).copy_(loaded[name])
                for name, weight in zip(self._names, self._weights, strict=True)
            ]
            self._loaded = None
        elif not self._average:
            self._average = [weight.clone() for weight in self._weights]

    def _restore(self) -> None:
        if self._is_swapped:
            self.swap()
            self._is_swapped = False
