"""Lowers the power of adder layers from 2 to 1 during training.

`building.variant_at` computes the power of a step, also for evaluations and resumed runs.
"""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from addertrain.nn import set_variant
from addertrain.ops.variants import Variant
from addertrain.recipe import Recipe
from addertrain.train.building import variant_at
from addertrain.train.module import AdderClassifier


class FallingPower(Callback):
    """Sets the power p of every adder layer before each step; evaluations keep the last step's.

    The layers compute Y = -sum |x - w|^p ("Universal Adder Neural Networks", arXiv 2105.14202), where p falls
    linearly from schedule.p_start in the first step to exactly 1 in the last step of schedule.p_epochs, and
    stays there: a run that ends with these epochs is evaluated at 1, like every other.

    Args:
        recipe: its model section gives the gradients where p is 1, its schedule how p falls.
        steps_per_epoch: optimizer steps, in which the fall is counted.
    """

    def __init__(self, recipe: Recipe, *, steps_per_epoch: int) -> None:
        self._recipe, self._steps_per_epoch = recipe, steps_per_epoch
        self._variant: Variant | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Sets the power if it has changed."""
        assert isinstance(pl_module, AdderClassifier)
        variant = variant_at(self._recipe, trainer.global_step + 1, steps_per_epoch=self._steps_per_epoch)
        if variant != self._variant:
            set_variant(pl_module.model, variant)
            self._variant = variant
