"""Batches from images of any size, which threads decode ahead of training."""

import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, wait
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from addertrain.data.crops import Crops, center_crops, random_crops
from addertrain.data.loaders.ordered import OrderedLoader
from addertrain.data.loaders.workers import Workers
from addertrain.data.types import Batch, PictureReader
from addertrain.errors import DataError, ReadError

_PART = 8  # pictures a thread takes at a time: enough to forget the cost of handing them over
BATCHES_AHEAD = 2


class PictureLoader(OrderedLoader):
    """The batches of `OrderedLoader` from a reader of images. Every batch has memory of its own and stays
    valid while the caller holds it. Threads live as long as an iteration: they are joined when it ends, is
    left, fails, or the loader is closed.

    Args:
        reader: the source of the images.
        image_size: height and width of the images of an epoch.
        is_random: whether training images are random crops, flipped at random; otherwise the central square.
        min_area: the smallest random crop, as a fraction of the image's area.
        center_share: the side of the central square that evaluations crop, as a fraction of the image's
            shorter side.
        num_threads: the number of threads that decode.
        timeout_seconds: how many seconds a batch may take before an error is raised.
        global_batch_size, rank, world_size, seed, training: see `OrderedLoader`.
    """

    def __init__(
        self,
        reader: PictureReader,
        *,
        image_size: Callable[[int], int],
        is_random: bool = True,
        min_area: float = 0.08,
        center_share: float = 0.875,
        num_threads: int = 1,
        timeout_seconds: float = 300.0,
        global_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        training: bool,
    ) -> None:
        super().__init__(
            len(reader),
            global_batch_size=global_batch_size,
            rank=rank,
            world_size=world_size,
            seed=seed,
            training=training,
        )
        self._reader = reader
        self._labels = torch.from_numpy(reader.labels)
        self._image_size = image_size
        self._is_random, self._min_area, self._center_share = is_random, min_area, center_share
        self._num_threads, self._timeout_seconds = num_threads, timeout_seconds
        self._running: weakref.WeakSet[Workers] = weakref.WeakSet()

    def batches(self, epoch: int, numbers: Iterable[int]) -> Generator[Batch, None, None]:
        """Only these batches of an epoch; the position of the loader does not change."""
        order, size = self._order(epoch), self._image_size(epoch)
        workers = Workers(self._num_threads, name="decode")
        self._running.add(workers)
        started: deque[_Started] = deque()
        try:
            for number in numbers:
                started.append(self._start(workers, order[self._share(number)], epoch, size))
                if len(started) > BATCHES_AHEAD:
                    yield self._finish(started.popleft())
            while started:
                yield self._finish(started.popleft())
        except CancelledError:
            raise DataError("loader: expected an open loader, got a closed one; build another") from None
        finally:
            workers.close()

    def look(self, epoch: int) -> int:
        """The size of the images."""
        return self._image_size(epoch)

    def close(self) -> None:
        """Ends the iterations that are still open and joins their threads."""
        for workers in list(self._running):
            workers.close()

    def _start(self, workers: Workers, samples: NDArray[np.int64], epoch: int, size: int) -> "_Started":
        self._reader.check()
        images_nhwc = torch.empty(
            (len(samples), size, size, 3), dtype=torch.uint8, pin_memory=torch.cuda.is_available()
        )
        crops = self._crops(samples, epoch)
        pixels = images_nhwc.numpy()
        parts = [slice(start, start + _PART) for start in range(0, len(samples), _PART)]
        reads = [
            workers.submit(self._reader.read, samples[part], crops.part(part), pixels[part]) for part in parts
        ]
        return _Started(images_nhwc, samples, reads)

    def _crops(self, samples: NDArray[np.int64], epoch: int) -> Crops:
        if self._training and self._is_random:
            return random_crops(samples, seed=self._seed, epoch=epoch, min_area=self._min_area)
        return center_crops(len(samples), share=self._center_share)

    def _finish(self, started: "_Started") -> Batch:
        done, missing = wait(started.reads, self._timeout_seconds, return_when=FIRST_EXCEPTION)
        for read in done:
            try:
                read.result()  # the error of a thread comes out here, with the thread's traceback
            except DataError as error:
                raise ReadError(str(error)) from error
        if missing:
            raise ReadError(
                f"loader: expected a batch within {self._timeout_seconds:g} s, got none; the storage hangs "
                "or is too slow; check it, or raise data.timeout_seconds; see "
                "docs/troubleshooting.md#a-batch-does-not-arrive"
            )
        indices = torch.from_numpy(started.samples)
        return Batch(started.images_nhwc.permute(0, 3, 1, 2), self._labels[indices], indices)


class _Started(NamedTuple):
    """A batch that threads are decoding."""

    images_nhwc: Tensor
    samples: NDArray[np.int64]
    reads: list[Future[Any]]
