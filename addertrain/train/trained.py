"""The network of a checkpoint as it would be evaluated."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from addertrain.checkpoint.files import read_manifest, read_tensors
from addertrain.checkpoint.store import locate_checkpoint
from addertrain.data import ImageData, load_data
from addertrain.data.sets.registry import image_shape
from addertrain.recipe import Recipe, TrainRecipe
from addertrain.train.data_record import check_evaluation, data_record
from addertrain.train.evaluation import evaluated
from addertrain.train.loaders import recalibration_batches
from addertrain.train.module import AdderClassifier
from addertrain.train.network import build_classifier
from addertrain.train.recipe_record import recipe_from_record
from addertrain.train.strategies.checkpoint_io import AVERAGE


@dataclass(frozen=True, eq=False)
class Trained:
    """A network in evaluation mode, its recipe, and the normalisation and shape (C, H, W) of its images.

    `data` is the data set of a run's recipe, as it was opened to build the network.
    """

    model: nn.Module
    recipe: Recipe
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_shape: tuple[int, int, int] = (3, 224, 224)
    data: ImageData | None = None


def trained_network(path: str | Path, *, recalibrate_batches: int | None = None) -> Trained:
    """The network of a checkpoint, or of a run's newest intact one, with the weights that an evaluation uses.

    It has averaged weights if the recipe averages them, and running statistics recomputed on training images
    if the recipe's evaluations do so, for which the data have to exist.

    Args:
        recalibrate_batches: instead of the recipe's; 0 keeps the statistics of training.

    Raises:
        CheckpointError, DataError: something is missing or damaged.
    """
    checkpoint = locate_checkpoint(Path(path), _ignore)
    recipe = recipe_from_record(read_manifest(checkpoint).get("recipe"), source=str(checkpoint))
    evaluated = recipe
    if recalibrate_batches is not None:
        evaluated = replace(recipe, train=replace(recipe.train, recalibrate_batches=recalibrate_batches))
    data = load_data(recipe.data)
    module = trained_classifier(checkpoint, evaluated, data)
    shape = image_shape(recipe.data, data)
    return Trained(module.model, recipe, data.num_classes, data.mean, data.std, image_shape=shape, data=data)


def trained_classifier(checkpoint: Path, recipe: Recipe, data: ImageData) -> AdderClassifier:
    """As `trained_network`, of a checkpoint that has been verified, with the normalisation of its images.

    Raises:
        CheckpointError, DataError: something is missing or damaged.
    """
    check_evaluation(checkpoint, data_record(data), _ignore)
    manifest = read_manifest(checkpoint)
    module = build_classifier(recipe, data, step=manifest["global_step"], to_train=False)
    module.model.load_state_dict(read_tensors(checkpoint, "model"))
    batches = recalibration_batches(recipe, data)
    statistics = None if batches is None else (batch.images for batch in batches.like(last_epoch(manifest)))
    with evaluated(module, weights=averaged_weights(checkpoint, recipe.train), statistics=statistics):
        state = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
    module.model.load_state_dict(state)
    module.model.eval()
    return module


def last_epoch(manifest: Mapping[str, Any]) -> int:
    """The epoch of the last step before a checkpoint."""
    epoch: int = manifest["epoch"]
    return epoch if manifest["batches"] else max(0, epoch - 1)


def averaged_weights(checkpoint: Path, train: TrainRecipe) -> dict[str, Tensor] | None:
    """The averaged weights that evaluations use, by parameter name; None if the recipe does not average.

    Raises:
        CheckpointError: the checkpoint has no averaged weights.
    """
    return read_tensors(checkpoint, AVERAGE) if train.ema_decay else None


def evaluated_tensors(checkpoint: Path, recipe: Recipe) -> dict[str, Tensor]:
    """Parameters and buffers by name, with averaged parameters instead of live ones if there are any."""
    return read_tensors(checkpoint, "model") | (averaged_weights(checkpoint, recipe.train) or {})


def _ignore(warning: str) -> None:
    """Ignores warnings of skipped checkpoints and of other test images, which `evaluate` gives."""
