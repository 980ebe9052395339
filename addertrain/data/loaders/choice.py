"""What training and evaluation ask of a loader, and the choice of one."""

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
    """Batches of one epoch for one rank; which epoch and from which batch on can be set.

    Lightning finds `state_dict`, `load_state_dict` and `sampler.set_epoch` by itself.
    """

    def __len__(self) -> int:
        """Batches in a whole epoch."""

    def __iter__(self) -> Iterator[Batch]:
        """One epoch, from the position that was set; without one, the same epoch from its beginning."""

    def batches(self, epoch: int, numbers: Iterable[int]) -> Generator[Batch, None, None]:
        """These batches of an epoch and no others; leaves the loader's own place alone."""

    @property
    def sampler(self) -> Any:
        """Something with `set_epoch`."""

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration runs."""

    def reorder(self, counter: int) -> None:
        """What is left of the epoch comes in order number `counter`; 0: in the one it has."""

    def state_dict(self) -> dict[str, Any]:
        """{"epoch", "batch"}: batches handed over, the same on every rank; "reorderings" where there are."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on behind those batches."""

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
        device: where batches are copied to, and training batches mixed and augmented as the recipe says;
            None: batches as they are read.

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
            "data.mixup, data.cutmix: expected the same even number of images on every rank, where partners "
            f"lie, got {settings.global_batch_size} images on {world_size} ranks; change one of the two"
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
        return MemoryLoader(images, augmentation=settings.augmentation, **share)
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
