"""Batches from a torch data set, read by torch's worker processes, in the order of `OrderedLoader`."""

import random
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from addertrain.data.loaders.ordered import OrderedLoader
from addertrain.data.randomness import Stream, draw
from addertrain.data.types import Batch


class DatasetLoader(OrderedLoader):
    """The batches of `OrderedLoader` from a data set of pairs; a Trainer can resume it exactly in mid-epoch.

    What transforms draw from torch, numpy and Python's `random` depends on seed, epoch and image alone: not
    on workers, ranks, or where a session began. It does not change the random numbers of training.

    Args:
        dataset: `dataset[i]` is an image [C, H, W], a tensor, and its label, an integer.
        num_workers: processes that read ahead; 0 reads in the training process.
        global_batch_size, rank, world_size, seed, training: see `OrderedLoader`.

    Raises:
        ValueError: as `OrderedLoader`; also when it is iterated in a process group of another size.
    """

    def __init__(
        self,
        dataset: Dataset[tuple[Tensor, int]],
        *,
        global_batch_size: int,
        training: bool,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(
            len(dataset),  # type: ignore[arg-type]
            global_batch_size=global_batch_size,
            rank=rank,
            world_size=world_size,
            seed=seed,
            training=training,
        )
        self._dataset, self._num_workers = dataset, num_workers

    def __iter__(self) -> Iterator[Batch]:
        ranks = dist.get_world_size() if dist.is_initialized() else 1
        if ranks != self._world_size:
            raise ValueError(
                f"DatasetLoader: expected world_size={ranks}, the size of the process group, got "
                f"{self._world_size}; pass rank and world_size, otherwise every rank reads the same images"
            )
        yield from super().__iter__()

    def batches(self, epoch: int, numbers: Iterable[int]) -> Generator[Batch, None, None]:
        """Only these batches of an epoch; the position of the loader does not change."""
        order = self._order(epoch)
        seeds = draw(self._seed, epoch, np.arange(self._num_samples), Stream.TRANSFORM)
        loader = DataLoader(
            _Seeded(self._dataset, seeds),
            batch_sampler=[order[self._share(number)].tolist() for number in numbers],
            num_workers=self._num_workers,
            collate_fn=_batch,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # the training's own stays where it is
        )
        yield from loader

    def close(self) -> None:
        """Does nothing, because workers end with their iteration."""


class _Seeded(Dataset[Any]):
    """A data set whose images are read with a random state that depends on their number."""

    def __init__(self, dataset: Dataset[Any], seeds: NDArray[np.uint64]) -> None:
        self._dataset, self._seeds = dataset, seeds

    def __getitems__(self, samples: list[int]) -> list[tuple[Any, Any, int]]:
        with _own_randomness():
            return [(*self._read(sample), sample) for sample in samples]

    def _read(self, sample: int) -> tuple[Any, Any]:
        seed = int(self._seeds[sample])
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002 (what transforms draw from)
        torch.default_generator.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)
        image, label = self._dataset[sample]
        return image, label


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Restores the random state of the process, which trains if there are no workers."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def _batch(items: list[tuple[Tensor, Any, int]]) -> Batch:
    images, labels, samples = zip(*items, strict=True)
    images_nhwc = torch.stack([image.permute(1, 2, 0) for image in images])  # one channel lies last, too
    numbers = torch.tensor([int(label) for label in labels])
    return Batch(images_nhwc.permute(0, 3, 1, 2), numbers, torch.tensor(samples))
