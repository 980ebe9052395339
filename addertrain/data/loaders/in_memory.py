"""Batches from images that fit in memory."""

from collections.abc import Generator, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from addertrain.data.augment.crop_flip import Augmentation, augment
from addertrain.data.loaders.ordered import OrderedLoader
from addertrain.data.types import Batch, ImageArrays

_VIEW_BATCH_SIZE = 256
"""Not the recipe's batch size, so that what is computed from a view does not depend on it."""


class MemoryLoader(OrderedLoader):
    """The batches of `OrderedLoader` from arrays; nothing is read ahead, and nothing has to be closed.

    Args:
        arrays: the images; they are shared with the caller, not copied.
        augmentation: the augmentation of training images; test images are not augmented.
        crop_until: the first epoch in which "crop_flip" only flips; None crops in all of them.
        global_batch_size, rank, world_size, seed, training: see `OrderedLoader`.
    """

    def __init__(
        self,
        arrays: ImageArrays,
        *,
        global_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        augmentation: Augmentation = "none",
        crop_until: int | None = None,
        training: bool,
    ) -> None:
        super().__init__(
            len(arrays),
            global_batch_size=global_batch_size,
            rank=rank,
            world_size=world_size,
            seed=seed,
            training=training,
        )
        self._images_nhwc = arrays.images_nchw.permute(0, 2, 3, 1).contiguous()
        self._labels = arrays.labels
        self._augmentation = augmentation
        self._crop_until = crop_until

    def batches(self, epoch: int, numbers: Iterable[int]) -> Generator[Batch, None, None]:
        """Only these batches of an epoch; the position of the loader does not change."""
        order, augmentation = self._order(epoch), self.look(epoch)
        for number in numbers:
            yield self._gather(order[self._share(number)], epoch, augmentation)

    def view(self, number: int) -> Iterator[Batch]:
        """All images in the order of the data set, not only this rank's, augmented as in epoch `number` while
        there are crops.
        """
        for start in range(0, self._num_samples, _VIEW_BATCH_SIZE):
            samples = np.arange(start, min(start + _VIEW_BATCH_SIZE, self._num_samples))
            yield self._gather(samples, number, self._augmentation)

    def look(self, epoch: int) -> Augmentation:
        """The augmentation of training images."""
        has_crops = self._crop_until is None or epoch < self._crop_until
        return "flip" if self._augmentation == "crop_flip" and not has_crops else self._augmentation

    def close(self) -> None:
        """Does nothing, because there are no threads or files."""

    def _gather(self, samples: NDArray[np.int64], epoch: int, augmentation: Augmentation) -> Batch:
        # numpy's take moves whole images: ten times as fast as index_select, which moves single bytes.
        images_nhwc = torch.from_numpy(self._images_nhwc.numpy().take(samples, axis=0))
        if self._training:
            images_nhwc = augment(images_nhwc, samples, augmentation, seed=self._seed, epoch=epoch)
        indices = torch.from_numpy(samples)
        return Batch(images_nhwc.permute(0, 3, 1, 2), self._labels[indices], indices)
