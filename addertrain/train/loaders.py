"""The loaders of a run: a rank's share of every batch, and the few batches that statistics come from."""

from dataclasses import replace

from addertrain.data import ImageData, ImageLoader, build_loader
from addertrain.recipe import DataRecipe, Recipe
from addertrain.train.callbacks.recalibration import FirstBatches
from addertrain.train.processes import World


def rank_loader(recipe: Recipe, data: ImageData, world: World, *, training: bool) -> ImageLoader:
    """This rank's images of an epoch, a part of a global batch at a time."""
    return build_loader(
        data, _parts(recipe), training=training, seed=recipe.train.seed, rank=world.rank,
        world_size=world.size, device=world.device,
    )  # fmt: skip


def first_batches(
    recipe: Recipe, data: ImageData, num_batches: int, *, rank: int = 0, world_size: int = 1
) -> FirstBatches:
    """This rank's share of the first `num_batches` global batches, of fewer where the data end before.

    They come in the parts that training computes them in, so that they need no more memory. The caller
    closes their loader.
    """
    loader = build_loader(data, _parts(recipe), training=True, seed=recipe.train.seed)
    num_parts = min(num_batches * recipe.train.accumulate, len(loader))
    return FirstBatches(loader, num_parts, rank=rank, world_size=world_size)


def _parts(recipe: Recipe) -> DataRecipe:
    """The settings under which a loader delivers the parts of a global batch one by one."""
    return replace(recipe.data, global_batch_size=recipe.data.global_batch_size // recipe.train.accumulate)
