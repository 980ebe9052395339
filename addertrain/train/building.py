"""The network that a section `model` of a recipe describes, without the run around it."""

from torch import nn

from addertrain.data.sets.registry import own_data
from addertrain.models import Kind, build_model, own_network
from addertrain.own_code import OwnFunction, is_own
from addertrain.recipe import ModelRecipe, Recipe


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
