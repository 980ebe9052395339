"""Builds the module that trains from a recipe; no other file builds a network to train."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from addertrain.checkpoint.files import read_manifest
from addertrain.checkpoint.store import locate_checkpoint
from addertrain.data import ImageArrays, ImageData
from addertrain.data.loaders.sizes import evaluation_size, training_size
from addertrain.errors import CheckpointError, UsageError
from addertrain.optim import build_schedule
from addertrain.recipe import DataRecipe, Recipe
from addertrain.train.autocast import AUTOCAST
from addertrain.train.building import build_network, initial_network
from addertrain.train.distillation import DistillingClassifier
from addertrain.train.initial_weights import load_weights, read_weights
from addertrain.train.module import AdderClassifier
from addertrain.train.recipe_record import recipe_from_record


def build_classifier(
    recipe: Recipe,
    data: ImageData,
    *,
    steps_per_epoch: int | None = None,
    step: int = 0,
    to_train: bool = True,
    world_size: int | None = None,
) -> AdderClassifier:
    """The network with its first weights, the same on every rank, and its schedule of optimizer steps.

    Args:
        steps_per_epoch: None: those of `data`, and one if there are fewer images than a batch.
        step: the optimizer steps of the weights that will be loaded, which decide the power of the layers.
        to_train: with the recipe's teacher, which an evaluation does not need.
        world_size: the number of ranks that share a batch, if it may not be divisible by them.
    """
    if steps_per_epoch is None:
        steps_per_epoch = max(1, recipe.steps_per_epoch(len(data.train)))
    model = initial_network(
        recipe,
        num_classes=data.num_classes,
        in_channels=len(data.mean),
        steps_per_epoch=steps_per_epoch,
        step=step,
        to_train=to_train,
    )
    if recipe.train.compile != "off":
        model.compile(backend=recipe.train.compile)  # in place: names of parameters stay
    base = recipe.optim.base_batch_size
    settings: dict[str, Any] = {
        "mean": data.mean,
        "std": data.std,
        "optim": recipe.optim,
        "schedule": build_schedule(recipe.schedule, steps_per_epoch=steps_per_epoch),
        "num_steps": recipe.schedule.epochs * steps_per_epoch,
        "label_smoothing": recipe.optim.label_smoothing,
        "channels_last": recipe.train.channels_last,
        "batch_scale": recipe.data.global_batch_size / (base if base else recipe.data.global_batch_size),
        "mean_share": world_size and recipe.data.global_batch_size / recipe.train.accumulate / world_size,
        "flip_evaluation": recipe.train.flip_evaluation,
    }
    if recipe.distill.teacher == "none" or not to_train:
        return AdderClassifier(model, **settings)
    teacher, dtype = _teacher(recipe, num_classes=data.num_classes, in_channels=len(data.mean))
    return DistillingClassifier(
        model, teacher, distill=recipe.distill, num_classes=data.num_classes, teacher_dtype=dtype, **settings
    )


def _teacher(recipe: Recipe, *, num_classes: int, in_channels: int) -> tuple[nn.Module, torch.dtype | None]:
    """The recipe's teacher: the convolutional baseline with new weights, or the network of a finished run and
    the dtype of autocast in which it was trained; None for float32, and for the baseline.

    Raises:
        CheckpointError: the frozen teacher's checkpoint cannot be used, or has other classes.
    """
    if recipe.distill.teacher == "twin":
        twin = build_network(recipe.model, num_classes=num_classes, in_channels=in_channels, kind="conv")
        return twin, None
    assert recipe.distill.checkpoint is not None, "the recipe's checks ask for it"
    try:
        checkpoint = locate_checkpoint(Path(recipe.distill.checkpoint), lambda _: None)
    except CheckpointError as error:
        raise CheckpointError(f"distill.checkpoint: {error}; the teacher has to be trained first") from None
    theirs = recipe_from_record(read_manifest(checkpoint).get("recipe"), source=str(checkpoint))
    teacher = build_network(theirs.model, num_classes=num_classes, in_channels=in_channels)
    load_weights(teacher, read_weights(checkpoint), source=f"distill.checkpoint: {checkpoint}")
    return teacher, AUTOCAST[theirs.train.precision]


def check_network(recipe: Recipe, data: ImageData) -> None:
    """Checks without training whether the recipe's network takes images of this data set, and its frozen
    teacher can be read.

    Raises:
        UsageError: it needs other channels or larger images, or does not return logits of the classes.
        CheckpointError: the frozen teacher's checkpoint cannot be used, or has other classes.
    """
    channels = len(data.mean)
    if recipe.distill.teacher == "frozen":
        _teacher(recipe, num_classes=data.num_classes, in_channels=channels)
    with torch.device("meta"):
        model = build_network(recipe.model, num_classes=data.num_classes, in_channels=channels).eval()
    if lazy := [name for name, each in model.named_parameters() if isinstance(each, UninitializedParameter)]:
        raise UsageError(
            f"{recipe.name}: expected layers of known sizes, got the lazy parameter {lazy[0]} in model.name "
            f"{recipe.model.name}; give that layer its sizes"
        )
    wanted = [module.in_channels for module in model.modules() if hasattr(module, "in_channels")]
    if wanted and wanted[0] != channels:
        raise UsageError(
            f"{recipe.name}: expected images of {wanted[0]} channels for model.name {recipe.model.name}, "
            f"got {channels} channels from data.name {recipe.data.name}; choose another network or other "
            "data"
        )
    for size in sorted(set(image_sizes(recipe.data, data))):
        try:
            with torch.no_grad():
                logits = model(torch.empty(2, channels, *size, device="meta"))
        except (RuntimeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(
                f"{recipe.name}: expected a network that takes images of {size[0]} x {size[1]}, got "
                f"{recipe.model.name}, which fails ({reason}); choose another network, or larger images"
            ) from None
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if shape != (2, data.num_classes):
            raise UsageError(
                f"{recipe.name}: expected logits (2, {data.num_classes}) of two images, got {shape} from "
                f"model.name {recipe.model.name}; "
                + (
                    "let the network use num_classes"
                    if isinstance(shape, tuple)
                    else "return the logits alone"
                )
            )


def image_sizes(settings: DataRecipe, data: ImageData) -> Iterator[tuple[int, int]]:
    """Height and width of the smallest and largest images of the run."""
    for part in (data.train, data.test):
        if isinstance(part, ImageArrays):
            yield part.images_nchw.shape[2], part.images_nchw.shape[3]
    if not isinstance(data.train, ImageArrays):
        for size in (training_size(settings, 0), settings.image_size, evaluation_size(settings, 0)):
            yield size, size
