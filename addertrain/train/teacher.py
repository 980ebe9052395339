"""The teacher that a recipe asks for."""

from pathlib import Path

from torch import nn

from addertrain.checkpoint.files import read_manifest
from addertrain.checkpoint.store import locate_checkpoint
from addertrain.recipe import Recipe
from addertrain.train.building import build_network
from addertrain.train.initial_weights import load_weights, read_weights
from addertrain.train.recipe_record import recipe_from_record


def build_teacher(recipe: Recipe, *, num_classes: int, in_channels: int) -> nn.Module:
    """A convolutional twin with new weights, or the network of a finished run.

    Raises:
        CheckpointError: the frozen teacher's checkpoint cannot be used, or knows other classes.
    """
    if recipe.distill.teacher == "twin":
        return build_network(recipe.model, num_classes=num_classes, in_channels=in_channels, kind="conv")
    assert recipe.distill.checkpoint is not None, "the recipe's checks ask for it"
    checkpoint = locate_checkpoint(Path(recipe.distill.checkpoint), lambda _: None)
    theirs = recipe_from_record(read_manifest(checkpoint).get("recipe"), source=str(checkpoint)).model
    teacher = build_network(theirs, num_classes=num_classes, in_channels=in_channels)
    load_weights(teacher, read_weights(checkpoint), source=f"distill.checkpoint: {checkpoint}")
    return teacher
