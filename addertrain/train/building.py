"""The network that a recipe describes, without the run around it; knows no Lightning."""

import torch
from torch import nn

from addertrain.data.sets.registry import own_data
from addertrain.models import Kind, build_model, own_network
from addertrain.nn import set_variant, synchronise_norms
from addertrain.ops.variants import Variant
from addertrain.optim import lowered_power
from addertrain.own_code import OwnFunction, is_own
from addertrain.recipe import ModelRecipe, Recipe


def initial_network(
    recipe: Recipe,
    *,
    num_classes: int,
    in_channels: int,
    steps_per_epoch: int,
    step: int = 0,
    to_train: bool = True,
) -> nn.Module:
    """The network with its first weights, the same on every rank, not compiled.

    Args:
        step: optimizer steps that the weights to be loaded have seen; they decide a layer's power.
        to_train: with norms over all ranks, where the recipe has them.
    """
    torch.manual_seed(recipe.train.seed)
    model = build_network(recipe.model, num_classes=num_classes, in_channels=in_channels)
    set_variant(model, variant_at(recipe, step, steps_per_epoch=steps_per_epoch))
    if recipe.train.sync_batchnorm and to_train:
        synchronise_norms(model)
    return model


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


def build_network(
    model: ModelRecipe, *, num_classes: int, in_channels: int, kind: Kind | None = None
) -> nn.Module:
    """One of ours or a user's own, with new weights from torch's random state.

    Args:
        in_channels: of the images.
        kind: in place of the recipe's: its convolutional twin, say.

    Raises:
        RunError, RecipeError: a function of a user's own that cannot be used.
    """
    return build_model(
        model.name,
        kind=kind or model.kind,
        num_classes=num_classes,
        head=model.head,
        in_channels=in_channels,
        arguments=model.args,
    )


def own_functions(recipe: Recipe) -> list[OwnFunction]:
    """The functions of a user's own that a recipe names, imported, with arguments that fit.

    Raises:
        RunError, RecipeError: one line about what stands in the way.
    """
    found = []
    if is_own(recipe.model.name):
        found.append(own_network(recipe.model.name, recipe.model.args))
    if is_own(recipe.data.name):
        found.append(own_data(recipe.data))
    return found
