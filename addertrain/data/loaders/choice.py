"""The protocol of a loader, and the function that builds the loader of a recipe."""

import functools
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Protocol

import torch

from addertrain.data.loaders.device import DeviceAugmentation, DeviceStage
from addertrain.data.loaders.in_memory import MemoryLoader
from addertrain.data.loaders.ordered import OrderedLoader
from addertrain.data.loaders.pictures import PictureLoader
from addertrain.data.loaders.sizes import decode_threads, evaluation_size, training_size
from addertrain.data.types import Batch, ImageArrays, ImageData
from addertrain.recipe import DataRecipe


class ImageLoader(Protocol):
    """Batches of one epoch for one rank; the epoch and the first batch can be set.

    Lightning finds `state_dict`, `load_state_dict` and `sampler.set_epoch` by itself.
    """

    def __len__(self) -> int:
        """The number of batches in an epoch."""

    def __iter__(self) -> Iterator[Batch]:
        """One epoch, from the position that was set; without one, the same epoch from the beginning."""

    def batches(self, epoch: int, numbers: Iterable[int]) -> Generator[Batch, None, None]:
        """Only these batches of an epoch; the position of the loader does not change."""

    @property
    def sampler(self) -> Any:
        """Something with `set_epoch`."""

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration runs."""

    def reorder(self, counter: int) -> None:
        """The rest of the epoch comes in order number `counter`; 0 is the usual order."""

    def state_dict(self) -> dict[str, Any]:
        """{"epoch", "batch"}: the batches delivered, the same on every rank, and "reorderings" if there are
        any.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes after those batches."""

    def close(self) -> None:
        """Stops threads, releases files."""


def build_loader(
    data: ImageData,
    settings: DataRecipe,
    *,
    training: bool,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | None = None,
) -> ImageLoader:
    """The recipe's loader: the training images in random order, or the test images, each exactly once.

    Args:
        device: the device to which batches are copied and on which training batches are augmented; None
        delivers batches as they are read.

    Raises:
        ValueError: a global batch that the ranks cannot share, or that is larger than the data set.
    """
    loader = _host_loader(data, settings, training=training, seed=seed, rank=rank, world_size=world_size)
    if device is None:
        return loader
    augmentation = DeviceAugmentation(
        mixup=settings.mixup,
        cutmix=settings.cutmix,
        randaugment=settings.randaugment,
        num_classes=data.num_classes,
        seed=seed,
    )
    if training and augmentation.is_mixing and settings.global_batch_size % (2 * world_size):
        raise ValueError(
            "data.mixup, data.cutmix: expected the same even number of images on every rank, because pairs "
            f"of images are mixed, got {settings.global_batch_size} images on {world_size} ranks; change "
            "one of the two"
        )
    loader.stage = DeviceStage(device, augmentation if training else None)
    return loader


def _host_loader(
    data: ImageData, settings: DataRecipe, *, training: bool, seed: int, rank: int, world_size: int
) -> OrderedLoader:
    images = data.train if training else data.test
    share: dict[str, Any] = {
        "global_batch_size": settings.global_batch_size,
        "rank": rank,
        "world_size": world_size,
        "seed": seed,
        "training": training,
    }
    if isinstance(images, ImageArrays):
        assert settings.augmentation != "resized_crop_flip", "the recipe's checks refuse it"
        return MemoryLoader(
            images, augmentation=settings.augmentation, crop_until=settings.crop_until, **share
        )
    return PictureLoader(
        images,
        image_size=functools.partial(training_size if training else evaluation_size, settings),
        is_random=settings.augmentation == "resized_crop_flip",
        min_area=settings.min_crop_area,
        center_share=settings.center_crop,
        num_threads=decode_threads(settings),
        timeout_seconds=settings.timeout_seconds,
        **share,
    )
