"""The network of a checkpoint as it would be evaluated."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from addertrain.checkpoint.files import has_tensors, read_manifest, read_tensors
from addertrain.data import ImageData, build_loader, load_data
from addertrain.nn import recalibrated
from addertrain.recipe import Recipe
from addertrain.train.module import AdderClassifier
from addertrain.train.network import build_classifier
from addertrain.train.recalibration import FirstBatches
from addertrain.train.recipe_record import recipe_from_record
from addertrain.train.resume import locate_checkpoint


@dataclass(frozen=True, eq=False)
class Trained:
    """A network in evaluation mode, the recipe that made it, and how its images are normalised."""

    model: nn.Module
    recipe: Recipe
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def trained_network(path: str | Path) -> Trained:
    """A checkpoint's network, or that of a run's newest whole one, with the weights an evaluation reads.

    Averaged weights where the recipe keeps them, and running statistics recomputed on training images where
    the recipe evaluates so; the data have to be there for that.

    Raises:
        CheckpointError, DataError: what is missing or damaged.
    """
    checkpoint = locate_checkpoint(Path(path), _ignore)
    manifest = read_manifest(checkpoint)
    recipe = recipe_from_record(manifest.get("recipe"), source=str(checkpoint))
    data = load_data(recipe.data)
    module = build_classifier(recipe, data, steps_per_epoch=1, to_train=False)
    state = read_tensors(checkpoint, "model")
    if has_tensors(manifest, "average"):
        state |= read_tensors(checkpoint, "average")
    module.model.load_state_dict(state)
    if recipe.train.recalibrate_batches:
        _recalibrate(module, recipe, data)
    return Trained(module.model.eval(), recipe, data.num_classes, data.mean, data.std)


def _recalibrate(module: AdderClassifier, recipe: Recipe, data: ImageData) -> None:
    """Puts the statistics of an evaluation in for good."""
    with recalibrated(module.model, _training_images(module, recipe, data)):
        state = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
    module.model.load_state_dict(state)


def _training_images(module: AdderClassifier, recipe: Recipe, data: ImageData) -> Iterator[Tensor]:
    parts = recipe.train.accumulate
    settings = replace(recipe.data, global_batch_size=recipe.data.global_batch_size // parts)
    loader = build_loader(data, settings, training=True, seed=recipe.train.seed)
    num_batches = min(recipe.train.recalibrate_batches * parts, len(loader))
    try:
        for batch in FirstBatches(loader, num_batches):
            with torch.no_grad():
                yield module.normalised(batch.images)
    finally:
        loader.close()


def _ignore(warning: str) -> None:
    """A damaged checkpoint that was passed over is `evaluate`'s to mention."""
