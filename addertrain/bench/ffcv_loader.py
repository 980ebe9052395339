"""FFCV's own Loader on a .beton of ours: what `bench loader` holds the loader here against.

The one file that imports the package; everything else uses its compiled library alone.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from addertrain.data.crops import MAX_ASPECT, MIN_AREA, MIN_ASPECT

_LONGEST_END_S = 10.0  # of a thread that has nothing left to do; one that failed or waits is left alone


def is_there() -> bool:
    """Whether FFCV can be imported, with all that its Loader needs."""
    with _TorchThreads():  # importing it sets their number, too
        try:
            import ffcv.loader  # noqa: F401
        except ImportError:
            return False
        return True


def ffcv_epochs(
    path: Path, indices: NDArray[np.int64], *, batch: int, num_threads: int, image_size: int
) -> Callable[[], Iterator[Any]]:
    """Epochs of batches as ours are: images (N, 3, H, W) of bytes, channels last, and labels (N, 1).

    Crops have the distribution of `random_crops`, but no seed fixes them. FFCV compiles its code again for
    every Loader.

    Args:
        indices: the images of an epoch, in any order; they may repeat.
    """
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, ToTensor, ToTorchImage

    decoder = RandomResizedCropRGBImageDecoder(
        (image_size, image_size), scale=(MIN_AREA, 1.0), ratio=(MIN_ASPECT, MAX_ASPECT)
    )
    with _TorchThreads():
        loader = Loader(
            str(path),
            batch_size=batch,
            num_workers=num_threads,
            order=OrderOption.RANDOM,
            os_cache=True,
            indices=indices,
            drop_last=True,
            pipelines={
                "image": [decoder, RandomHorizontalFlip(), ToTensor(), ToTorchImage()],
                "label": [IntDecoder(), ToTensor()],
                "checksum": None,
            },
        )
    return lambda: _epoch(loader)


def _epoch(loader: Any) -> Iterator[Any]:
    with _TorchThreads():
        batches = iter(loader)
        try:
            for batch in batches:  # noqa: UP028  (`yield from` would stop its thread without a last word)
                yield batch
        except GeneratorExit:
            # Its thread continues after a caller stops, in the time of the next measurement: it is ended
            # here.
            for _ in batches:
                pass
            raise
        finally:
            batches.join(_LONGEST_END_S)


class _TorchThreads:
    """Puts torch's number of threads back, which FFCV sets to its own."""

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self._before)
