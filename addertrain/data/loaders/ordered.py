"""What all loaders have in common: the samples of every batch, and the position in the epoch."""

import abc
import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from addertrain.data.loaders.order import (
    evaluation_starts,
    rank_share,
    reordered,
    sample_order,
    training_share,
)
from addertrain.data.types import Batch

Stage = Callable[[Iterator[Batch], int], Iterator[Batch]]
"""Takes the batches of an epoch and the epoch; may run ahead of its caller."""


class OrderedLoader(abc.ABC):
    """One epoch: full global batches in random order for training, every image once and in order for
    evaluation. `set_epoch` and `load_state_dict` set the epoch and the first batch, which take effect at the
    next iteration. Iterating again repeats the same epoch from the beginning. The state counts the batches
    delivered and is the same on every rank.

    Args:
        num_samples: images in the data set.
        global_batch_size: images in a step over all ranks.
        rank, world_size: the rank of this process and the number of ranks.
        seed: decides, with the epoch, order and augmentation.
        training: whether to train or to evaluate.

    `stage`, if it is set, processes the batches of an iteration before they are delivered.

    Raises:
        ValueError: the ranks cannot share the global batch, or there are fewer images than a batch or than
        ranks.
    """

    batch_sampler = None  # Lightning reads it on every loader that has a `sampler`

    def __init__(
        self,
        num_samples: int,
        *,
        global_batch_size: int,
        rank: int,
        world_size: int,
        seed: int,
        training: bool,
    ) -> None:
        self._check_sizes(num_samples, global_batch_size, rank, world_size, training)
        self._num_samples = num_samples
        self._global_batch_size = global_batch_size
        self._rank, self._world_size = rank, world_size
        self._seed, self._training = seed, training
        self._starts = evaluation_starts(
            num_samples, global_batch_size=global_batch_size, world_size=world_size
        )
        self._num_batches = num_samples // global_batch_size if training else len(self._starts) - 1
        self._epoch = 0
        self._next_start = 0  # the batch at which the next iteration begins, once
        self._num_consumed = 0
        self._reorderings: list[list[int]] = []  # of this epoch: [first sample's place, counter]
        self._next_reordering = 0
        self.stage: Stage | None = None

    @abc.abstractmethod
    def batches(self, epoch: int, numbers: Iterable[int]) -> Generator[Batch, None, None]:
        """Only these batches of an epoch; the position of the loader does not change."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stops threads, releases files."""

    def look(self, epoch: int) -> object:
        """What the images of an epoch have in common, if it changes: their size, for example."""
        return None

    def first_alike(self, epoch: int) -> int:
        """The first epoch whose images look like those of this one."""
        return next(other for other in range(epoch + 1) if self.look(other) == self.look(epoch))

    def __len__(self) -> int:
        """The number of batches in an epoch, the same on every rank."""
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        # A generator: this runs when the first batch is asked for; by then Lightning has set the epoch.
        epoch, start = self._epoch, self._next_start
        self._next_start = 0
        if self._next_reordering > 0:
            self._reorderings.append([start * self._global_batch_size, self._next_reordering])
            self._next_reordering = 0
        numbers = range(start, self._num_batches)
        with contextlib.closing(self.batches(epoch, numbers)) as batches:
            staged = batches if self.stage is None else self.stage(batches, epoch)
            for number, batch in zip(numbers, staged, strict=True):
                self._num_consumed = number + 1
                yield batch

    @property
    def sampler(self) -> Self:
        """The loader itself: Lightning looks for `set_epoch` on a loader's sampler only."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration runs; a loaded position stays if it lies in this very epoch."""
        if epoch != self._epoch:
            self._epoch, self._next_start, self._num_consumed = epoch, 0, 0
            self._reorderings = []

    def reorder(self, counter: int) -> None:
        """The next iteration delivers the rest of its epoch in order number `counter`; 0 is the usual order.

        Every image still occurs once in the epoch, and later epochs do not change.
        """
        self._next_reordering = counter

    def state_dict(self) -> dict[str, Any]:
        """The position in the epoch; the same on every rank and for any number of ranks."""
        place: dict[str, Any] = {"epoch": self._epoch, "batch": self._num_consumed}
        if self._reorderings:
            place["reorderings"] = [list(each) for each in self._reorderings]
        return place

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration starts after the batches that `state` counts."""
        epoch, batch = state["epoch"], state["batch"]
        if not 0 <= batch <= self._num_batches:
            raise ValueError(
                f"{type(self).__name__}: expected a state after 0 to {self._num_batches} batches, got "
                f"{batch}; load one that was saved with the same data set and global batch size"
            )
        self._epoch, self._next_start, self._num_consumed = epoch, batch, batch
        self._reorderings = [list(each) for each in state.get("reorderings", [])]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if not self._training:
            return np.arange(self._num_samples)
        order = sample_order(self._seed, epoch, self._num_samples)
        for start, counter in self._reorderings if epoch == self._epoch else ():
            order = reordered(order, start, seed=self._seed, epoch=epoch, counter=counter)
        return order

    def _share(self, number: int) -> slice:
        """This rank's slice of a batch, in the order of the epoch."""
        rank, world_size = self._rank, self._world_size
        if self._training:
            return training_share(
                number, global_batch_size=self._global_batch_size, rank=rank, world_size=world_size
            )
        start, end = self._starts[number : number + 2]
        return rank_share(start, end, rank=rank, world_size=world_size)

    @classmethod
    def _check_sizes(
        cls, num_samples: int, global_batch_size: int, rank: int, world_size: int, training: bool
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"{cls.__name__}: expected a rank from 0 to {world_size - 1}, got {rank}")
        if training and global_batch_size < world_size:
            raise ValueError(
                f"{cls.__name__}: expected at least one image of a global batch for each of {world_size} "
                f"ranks, got {global_batch_size} images; raise data.global_batch_size or use fewer ranks"
            )
        if training and num_samples < global_batch_size:
            raise ValueError(
                f"{cls.__name__}: expected at least one global batch of {global_batch_size} images, "
                f"got {num_samples} images; lower data.global_batch_size"
            )
        if num_samples < world_size:
            raise ValueError(
                f"{cls.__name__}: expected at least one image for each of {world_size} ranks, got "
                f"{num_samples} images; use fewer ranks"
            )
