"""Builds the network that a recipe describes; does not import Lightning."""

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
        step: the optimizer steps of the weights that will be loaded, which decide the power of the layers.
        to_train: with norms over all ranks if the recipe has them.
    """
    torch.manual_seed(recipe.train.seed)
    model = build_network(recipe.model, num_classes=num_classes, in_channels=in_channels)
    set_variant(model, variant_at(recipe, step, steps_per_epoch=steps_per_epoch))
    if recipe.train.sync_batchnorm and to_train:
        synchronise_norms(model)
    return model


def variant_at(recipe: Recipe, step: int, *, steps_per_epoch: int) -> Variant:
    """The variant after `step` optimizer steps: that of the last step, or of the first before any step."""
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
    """A network of ours or your own, with new weights from torch's random state.

    Args:
        in_channels: of the images.
        kind: the kind of layer instead of the recipe's, for example for the convolutional baseline.

    Raises:
        RunError, RecipeError: a function of your own cannot be used.
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
    """Imports your own functions that a recipe names, and checks their arguments.

    Raises:
        RunError, RecipeError: one line that says why a function cannot be used.
    """
    found = []
    if is_own(recipe.model.name):
        found.append(own_network(recipe.model.name, recipe.model.args))
    if is_own(recipe.data.name):
        found.append(own_data(recipe.data))
    return found
