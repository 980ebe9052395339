"""Batches from images that fit in memory."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from addertrain.data.arrays import ImageArrays
from addertrain.data.augmentation import Augmentation, augment
from addertrain.data.order import evaluation_share, evaluation_starts, sample_order, training_share


class Batch(NamedTuple):
    """This rank's part of a global batch.

    images: uint8 (N, C, H, W), channels-last in memory; labels: int64 (N,); samples: int64 (N,), which images
    of the data set these are.
    """

    images: Tensor
    labels: Tensor
    samples: Tensor


class MemoryLoader:
    """One epoch: to train, whole global batches in random order; to evaluate, every image once, in order.

    Which epoch and from which batch on is set by `set_epoch` and `load_state_dict` and taken up when the
    first batch is asked for. Iterating again repeats the same epoch from its beginning. The state counts the
    batches handed over and is the same on every rank.

    Args:
        arrays: the images; they are shared with the caller, not copied.
        global_batch_size: images in a step over all ranks.
        rank, world_size: this process and how many there are.
        seed: with the epoch, decides order and augmentation.
        augmentation: what to do to training images; evaluation sees them as they are.
        training: whether to train or to evaluate.

    Raises:
        ValueError: ranks that cannot share the global batch, fewer images than a batch or than ranks.
    """

    batch_sampler = None  # Lightning reads it on every loader that has a `sampler`

    def __init__(
        self,
        arrays: ImageArrays,
        *,
        global_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        augmentation: Augmentation = "none",
        training: bool,
    ) -> None:
        num_samples = len(arrays.labels)
        _check_sizes(num_samples, global_batch_size, rank, world_size, training)
        self._images_nhwc = arrays.images_nchw.permute(0, 2, 3, 1).contiguous()
        self._labels = arrays.labels
        self._global_batch_size = global_batch_size
        self._rank, self._world_size = rank, world_size
        self._seed, self._augmentation, self._training = seed, augmentation, training
        self._starts = evaluation_starts(
            num_samples, global_batch_size=global_batch_size, world_size=world_size
        )
        self._num_batches = num_samples // global_batch_size if training else len(self._starts) - 1
        self._epoch = 0
        self._next_start = 0  # the batch at which the next iteration begins, once
        self._num_consumed = 0

    def __len__(self) -> int:
        """Batches in a whole epoch, the same on every rank."""
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        # A generator: this runs when the first batch is asked for; by then Lightning has set the epoch.
        epoch, start = self._epoch, self._next_start
        self._next_start = 0
        order = self._order(epoch)
        for batch in range(start, self._num_batches):
            samples = order[self._share(batch)]
            self._num_consumed = batch + 1
            yield self._gather(samples, epoch)

    @property
    def sampler(self) -> "MemoryLoader":
        """The loader itself: Lightning looks for `set_epoch` on a loader's sampler only."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration runs; a loaded position stays if it lies in this very epoch."""
        if epoch != self._epoch:
            self._epoch, self._next_start, self._num_consumed = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """Where the epoch stands; the same on every rank and for any number of ranks."""
        return {"epoch": self._epoch, "batch": self._num_consumed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next iteration goes on behind the batches that `state` counts."""
        epoch, batch = state["epoch"], state["batch"]
        if not 0 <= batch <= self._num_batches:
            raise ValueError(
                f"MemoryLoader: expected a state of 0 to {self._num_batches} batches, got {batch}; "
                "was it saved with another data set or global batch size?"
            )
        self._epoch, self._next_start, self._num_consumed = epoch, batch, batch

    def close(self) -> None:
        """Nothing to release: no threads, no files."""

    def _order(self, epoch: int) -> NDArray[np.int64]:
        num_samples = len(self._labels)
        return sample_order(self._seed, epoch, num_samples) if self._training else np.arange(num_samples)

    def _share(self, batch: int) -> slice:
        if self._training:
            return training_share(
                batch, global_batch_size=self._global_batch_size, rank=self._rank, world_size=self._world_size
            )
        start, end = self._starts[batch : batch + 2]
        return evaluation_share(start, end, rank=self._rank, world_size=self._world_size)

    def _gather(self, samples: NDArray[np.int64], epoch: int) -> Batch:
        # numpy's take moves whole images: ten times as fast as index_select, which moves single bytes.
        images_nhwc = torch.from_numpy(self._images_nhwc.numpy().take(samples, axis=0))
        if self._training:
            images_nhwc = augment(images_nhwc, samples, self._augmentation, seed=self._seed, epoch=epoch)
        indices = torch.from_numpy(samples)
        return Batch(images_nhwc.permute(0, 3, 1, 2), self._labels[indices], indices)


def _check_sizes(
    num_samples: int, global_batch_size: int, rank: int, world_size: int, training: bool
) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"MemoryLoader: expected a rank of 0 to {world_size - 1}, got {rank}")
    if training and global_batch_size % world_size:
        raise ValueError(
            f"MemoryLoader: expected a global batch that {world_size} ranks can share equally, "
            f"got {global_batch_size}; change data.global_batch_size or the number of ranks"
        )
    if training and num_samples < global_batch_size:
        raise ValueError(
            f"MemoryLoader: expected at least one global batch of {global_batch_size} images, "
            f"got {num_samples} images; lower data.global_batch_size"
        )
    if num_samples < world_size:
        raise ValueError(
            f"MemoryLoader: expected an image for each of {world_size} ranks, got {num_samples} images"
        )
