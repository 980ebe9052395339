"""Gradient clipping as a callback: after reduction, accumulation and unscaling, before the update."""

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from addertrain.optim import AdderOptimizer, clip_others_, clip_parts_, parts
from addertrain.optim.shards import local
from addertrain.train.strategies.sharded import Sharded


class ClipNorm(Callback):
    """Clips the global norm of all gradients except those of adder filters, whose length ALR sets.

    Args:
        max_norm: the largest norm that is allowed.
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Clips; sharded gradients are clipped by their norm over all ranks."""
        if not isinstance(trainer.strategy, Sharded):
            clip_others_(optimizer.param_groups, self.max_norm)
            return
        assert isinstance(optimizer, AdderOptimizer)
        gradients = trainer.strategy.gradients()
        filters = {id(param) for param in optimizer.filters}
        others = [
            value
            for param, value in zip(gradients.parameters, gradients.values, strict=True)
            if id(param) not in filters
        ]
        assert dist.group.WORLD is not None
        clip_parts_(
            others,
            self.max_norm * gradients.scale,
            group=dist.group.WORLD,
            like=local(parts(optimizer)[0]),
        )
