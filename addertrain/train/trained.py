"""The network of a checkpoint as it would be evaluated."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from addertrain.checkpoint.files import has_tensors, read_manifest, read_tensors
from addertrain.checkpoint.store import locate_checkpoint
from addertrain.data import ImageData, load_data
from addertrain.data.sets.registry import image_shape
from addertrain.nn import recalibrated
from addertrain.recipe import Recipe
from addertrain.train.data_record import check_evaluation, data_record
from addertrain.train.loaders import first_batches
from addertrain.train.module import AdderClassifier
from addertrain.train.network import build_classifier
from addertrain.train.recipe_record import recipe_from_record


@dataclass(frozen=True, eq=False)
class Trained:
    """A network in evaluation mode, its recipe, and the normalisation and shape (C, H, W) of its images."""

    model: nn.Module
    recipe: Recipe
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_shape: tuple[int, int, int] = (3, 224, 224)


def trained_network(path: str | Path, *, recalibrate_batches: int | None = None) -> Trained:
    """A checkpoint's network, or that of a run's newest whole one, with the weights an evaluation reads.

    Averaged weights where the recipe keeps them, and running statistics recomputed on training images where
    the recipe evaluates so; the data have to be there for that.

    Args:
        recalibrate_batches: instead of the recipe's; 0: statistics as training left them.

    Raises:
        CheckpointError, DataError: what is missing or damaged.
    """
    checkpoint = locate_checkpoint(Path(path), _ignore)
    recipe = recipe_from_record(read_manifest(checkpoint).get("recipe"), source=str(checkpoint))
    evaluated = recipe
    if recalibrate_batches is not None:
        evaluated = replace(recipe, train=replace(recipe.train, recalibrate_batches=recalibrate_batches))
    data = load_data(recipe.data)
    module = trained_classifier(checkpoint, evaluated, data)
    shape = image_shape(recipe.data, data)
    return Trained(module.model, recipe, data.num_classes, data.mean, data.std, image_shape=shape)


def trained_classifier(checkpoint: Path, recipe: Recipe, data: ImageData) -> AdderClassifier:
    """As `trained_network`, of a checkpoint that has been verified, with the normalisation of its images.

    Raises:
        CheckpointError, DataError: what is missing or damaged.
    """
    check_evaluation(checkpoint, data_record(data), _ignore)
    step = read_manifest(checkpoint)["global_step"]
    steps_per_epoch = max(1, len(data.train) // recipe.data.global_batch_size)
    module = build_classifier(recipe, data, steps_per_epoch=steps_per_epoch, step=step, to_train=False)
    module.model.load_state_dict(evaluated_tensors(checkpoint))
    if recipe.train.recalibrate_batches:
        _recalibrate(module, recipe, data)
    module.model.eval()
    return module


def evaluated_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Parameters and buffers by name, averaged parameters in place of live ones where there are any."""
    state = read_tensors(checkpoint, "model")
    if has_tensors(read_manifest(checkpoint), "average"):
        state |= read_tensors(checkpoint, "average")
    return state


def _recalibrate(module: AdderClassifier, recipe: Recipe, data: ImageData) -> None:
    """Puts the statistics of an evaluation in for good."""
    with recalibrated(module.model, _training_images(module, recipe, data)):
        state = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
    module.model.load_state_dict(state)


def _training_images(module: AdderClassifier, recipe: Recipe, data: ImageData) -> Iterator[Tensor]:
    batches = first_batches(recipe, data, recipe.train.recalibrate_batches)
    try:
        for batch in batches:
            with torch.no_grad():
                yield module.normalised(batch.images)
    finally:
        batches.loader.close()


def _ignore(warning: str) -> None:
    """A damaged checkpoint that was passed over, or other test images, are `evaluate`'s to mention."""
