"""The variant of a recipe's adder layers, and the power that falls from 2 to 1 while it trains."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from addertrain.nn import set_variant
from addertrain.ops.variants import Variant
from addertrain.optim import lowered_power
from addertrain.recipe import Recipe
from addertrain.train.module import AdderClassifier


def variant_at(recipe: Recipe, step: int, *, steps_per_epoch: int) -> Variant:
    """The variant after `step` optimizer steps: the one of the last step, or before any of the first."""
    model, schedule = recipe.model, recipe.schedule
    p = 1.0
    if schedule.p_start > 1.0:
        num_steps = schedule.p_epochs * steps_per_epoch
        p = lowered_power(max(step - 1, 0), num_steps, start=schedule.p_start)
    return Variant(
        p=p, filter_gradient=model.filter_gradient, input_gradient=model.input_gradient,
        input_slope=model.input_slope,
    )  # fmt: skip


class FallingPower(Callback):
    """Sets the power of every adder layer before each step; evaluations keep the last step's."""

    def __init__(self, recipe: Recipe, *, steps_per_epoch: int) -> None:
        self._recipe, self._steps_per_epoch = recipe, steps_per_epoch
        self._variant: Variant | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Sets it where it has moved."""
        assert isinstance(pl_module, AdderClassifier)
        variant = variant_at(self._recipe, trainer.global_step + 1, steps_per_epoch=self._steps_per_epoch)
        if variant != self._variant:
            set_variant(pl_module.model, variant)
            self._variant = variant
