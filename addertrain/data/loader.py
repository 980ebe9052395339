"""What training and evaluation ask of a loader, and the choice of one."""

from collections.abc import Iterator
from typing import Any, Protocol

from addertrain.data.arrays import ImageData
from addertrain.data.memory import Batch, MemoryLoader
from addertrain.recipe import DataRecipe


class ImageLoader(Protocol):
    """Batches of one epoch for one rank; which epoch and from which batch on can be set.

    Lightning finds `state_dict`, `load_state_dict` and `sampler.set_epoch` by itself.
    """

    def __len__(self) -> int:
        """Batches in a whole epoch."""

    def __iter__(self) -> Iterator[Batch]:
        """One epoch, from the position that was set; without one, the same epoch from its beginning."""

    @property
    def sampler(self) -> Any:
        """Something with `set_epoch`."""

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration runs."""

    def state_dict(self) -> dict[str, int]:
        """{"epoch", "batch"}: batches handed over, the same on every rank."""

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on behind those batches."""

    def close(self) -> None:
        """Stops threads, releases files."""


def build_loader(
    data: ImageData, settings: DataRecipe, *, training: bool, seed: int, rank: int = 0, world_size: int = 1
) -> ImageLoader:
    """The recipe's loader: the training images in random order, or the test images, each exactly once.

    Raises:
        ValueError: a global batch that the ranks cannot share, or that is larger than the data set.
    """
    return MemoryLoader(
        data.train if training else data.test,
        global_batch_size=settings.global_batch_size,
        rank=rank,
        world_size=world_size,
        seed=seed,
        augmentation=settings.augmentation,
        training=training,
    )
