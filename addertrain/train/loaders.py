"""The loaders of a run: a rank's share of every batch, and the few batches for recomputing statistics."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, Self

from addertrain.data import ImageData, ImageLoader, build_loader
from addertrain.data.loaders.ordered import OrderedLoader
from addertrain.recipe import DataRecipe, Recipe
from addertrain.train.batches import LabelledImages
from addertrain.train.processes import World


class AnyBatches(Protocol):
    """A loader that can deliver any batches of an epoch without reading others."""

    def __len__(self) -> int: ...

    def batches(self, epoch: int, numbers: Iterable[int]) -> Iterator[LabelledImages]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class FirstBatches:
    """The first batches of an epoch, the same ones on every iteration; fewer if an epoch has no more.
    `loader` may be the one that trains, because its position does not change.

    Args:
        rank, world_size: if the loader delivers global batches on every rank, these are distributed over the
            ranks, so that statistics are the same for any number of ranks. Otherwise every rank reads its own
            share.
        epoch: the epoch of the batches.
    """

    loader: AnyBatches
    num_batches: int
    rank: int = 0
    world_size: int = 1
    epoch: int = 0

    def __iter__(self) -> Iterator[LabelledImages]:
        num_batches = min(self.num_batches, len(self.loader))
        return self.loader.batches(self.epoch, range(self.rank, num_batches, self.world_size))

    def like(self, epoch: int) -> Self:
        """Batches that look like those of an epoch, and are the same ones for all epochs that look so: where
        the loaders of `addertrain.data` change sizes or crops, those of the first such epoch.
        """
        return replace(
            self, epoch=self.loader.first_alike(epoch) if isinstance(self.loader, OrderedLoader) else 0
        )


def rank_loader(recipe: Recipe, data: ImageData, world: World, *, training: bool) -> ImageLoader:
    """This rank's images of an epoch, a micro-batch at a time."""
    return build_loader(
        data, _micro_batches(recipe), training=training, seed=recipe.train.seed, rank=world.rank,
        world_size=world.size, device=world.device,
    )  # fmt: skip


def first_batches(
    recipe: Recipe, data: ImageData, num_batches: int, *, rank: int = 0, world_size: int = 1
) -> FirstBatches:
    """This rank's share of the first `num_batches` global batches, or of all if there are fewer. They come in
    micro-batches, as in training, so that they need no more memory. The caller closes their loader.
    """
    loader = build_loader(data, _micro_batches(recipe), training=True, seed=recipe.train.seed)
    return FirstBatches(loader, num_batches * recipe.train.accumulate, rank=rank, world_size=world_size)


def recalibration_batches(
    recipe: Recipe, data: ImageData, *, rank: int = 0, world_size: int = 1
) -> FirstBatches | None:
    """The batches on which the recipe's evaluations recompute statistics; None if they do not."""
    num_batches = recipe.train.recalibrate_batches
    return first_batches(recipe, data, num_batches, rank=rank, world_size=world_size) if num_batches else None


def int8_batches(recipe: Recipe, data: ImageData) -> FirstBatches:
    """The batches that calibrate an 8-bit evaluation, the same on every rank."""
    return first_batches(recipe, data, max(1, recipe.train.recalibrate_batches))


def _micro_batches(recipe: Recipe) -> DataRecipe:
    """The settings with which a loader delivers the micro-batches of a global batch one by one."""
    return replace(recipe.data, global_batch_size=recipe.data.global_batch_size // recipe.train.accumulate)
