"""Gradient clipping as a callback: after reduction, accumulation and unscaling, before the update."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from addertrain.optim import clip_others_


class ClipNorm(Callback):
    """Clips the global norm of all gradients but the adder filters', whose length is ALR's business.

    Args:
        max_norm: the norm that is left at most.
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Clips."""
        clip_others_(optimizer.param_groups, self.max_norm)
