"""The last stage of a loader: copies batches to the device one batch ahead and augments them there."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from addertrain.data.augment.mixing import Mix, draw_mix, mixed
from addertrain.data.types import Batch


@dataclass(frozen=True, kw_only=True)
class DeviceAugmentation:
    """Augmentation of batches by (seed, epoch, sample): operations of RandAugment, then mixing.

    Args:
        mixup, cutmix: the α of their Beta distributions; 0 turns them off.
        randaugment: magnitude from 1 to 10; 0 turns it off.
        num_classes: of the soft labels.
        seed: the run's.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    randaugment: int = 0
    num_classes: int
    seed: int

    @property
    def is_mixing(self) -> bool:
        """Whether labels become probabilities."""
        return self.mixup > 0 or self.cutmix > 0


class _Draws(NamedTuple):
    """The random draws for a batch, on the host."""

    operations: NDArray[np.int64] | None
    mix: Mix | None


class DeviceStage:
    """Copies batches on a side stream while the step before them runs, and augments them on the device.

    The copy's memory cannot be overwritten early: the host allocator reuses pinned memory only when the
    copies that it recorded have ended.
    """

    def __init__(self, device: torch.device, augmentation: DeviceAugmentation | None = None) -> None:
        self._device, self._augmentation = device, augmentation

    def __call__(self, batches: Iterator[Batch], epoch: int) -> Iterator[Batch]:
        """The batches, in the same order."""
        if self._device.type == "cuda":
            yield from self._copied(batches, epoch)
            return
        for batch in batches:
            yield self._augmented(batch, self._draw(batch, epoch))

    def _copied(self, batches: Iterator[Batch], epoch: int) -> Iterator[Batch]:
        side = torch.cuda.Stream(self._device)
        ahead: tuple[Batch, _Draws, torch.cuda.Event] | None = None
        for batch in batches:
            draws = self._draw(batch, epoch)
            with torch.cuda.stream(side):
                copy = Batch(*(part.to(self._device, non_blocking=True) for part in batch))
                is_there = torch.cuda.Event()
                is_there.record(side)
            if ahead is not None:
                yield self._handed_over(*ahead)
            ahead = copy, draws, is_there
        if ahead is not None:
            yield self._handed_over(*ahead)

    def _handed_over(self, copy: Batch, draws: _Draws, is_there: torch.cuda.Event) -> Batch:
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(is_there)
        for part in copy:
            # Its memory came from the side stream and must not go back to it early.
            part.record_stream(stream)
        return self._augmented(copy, draws)

    def _draw(self, batch: Batch, epoch: int) -> _Draws:
        settings = self._augmentation
        if settings is None:
            return _Draws(None, None)
        samples, operations, mix = batch.samples.numpy(), None, None
        if settings.randaugment:
            # Here: torchvision takes seconds to import.
            from addertrain.data.augment.randaugment import draw_operations

            operations = draw_operations(samples, seed=settings.seed, epoch=epoch)
        if settings.is_mixing:
            mix = draw_mix(
                samples, mixup=settings.mixup, cutmix=settings.cutmix, seed=settings.seed, epoch=epoch
            )
        return _Draws(operations, mix)

    def _augmented(self, batch: Batch, draws: _Draws) -> Batch:
        settings = self._augmentation
        if settings is None:
            return batch
        if draws.operations is not None:
            from addertrain.data.augment.randaugment import apply_operations

            images = apply_operations(batch.images, draws.operations, magnitude=settings.randaugment)
            batch = batch._replace(images=images)
        if draws.mix is not None:
            batch = mixed(batch, draws.mix, num_classes=settings.num_classes)
        return batch
