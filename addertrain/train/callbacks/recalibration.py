"""Evaluation with the statistics of the current weights, which the training never notices.

BatchNorm's running means lag behind adder weights that still move; recomputed on a few training batches,
accuracy in mid-training is real. With no batches the ranks' running statistics are averaged, as a checkpoint
would hold them.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from addertrain.nn import average_buffers, recalibrated
from addertrain.train.batches import LabelledImages
from addertrain.train.callbacks.exchange import exchange
from addertrain.train.module import AdderClassifier


class AnyBatches(Protocol):
    """A loader that gives any batches of an epoch and reads no others."""

    def batches(self, epoch: int, numbers: Iterable[int]) -> Iterator[LabelledImages]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class FirstBatches:
    """This rank's share of the first batches of epoch 0, the same ones on every iteration.

    Whole global batches go round the ranks, so that the statistics are the same on any number of ranks.

    Args:
        loader: gives whole global batches on every rank.
    """

    loader: AnyBatches
    num_batches: int
    rank: int = 0
    world_size: int = 1

    def __iter__(self) -> Iterator[LabelledImages]:
        return self.loader.batches(0, range(self.rank, self.num_batches, self.world_size))


class FreshStatistics(Callback):
    """Gives every evaluation its own BatchNorm statistics and puts the live ones back, bit for bit.

    `seconds` is what the last evaluation spent on them: a forward pass over the batches.

    Args:
        batches: training batches, the same ones each time; None: the mean over the ranks instead.
    """

    def __init__(self, batches: Iterable[LabelledImages] | None) -> None:
        self.batches = batches
        self.seconds = 0.0
        self._active = ExitStack()
        self._buffers: list[Tensor] = []
        self._live: list[Tensor] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Swaps the statistics in."""
        assert isinstance(pl_module, AdderClassifier)
        self._buffers = list(pl_module.model.buffers())
        self._live = [buffer.clone() for buffer in self._buffers]
        start = time.perf_counter()
        group = dist.group.WORLD if dist.is_initialized() and dist.get_world_size() > 1 else None
        with trainer.precision_plugin.forward_context():
            if self.batches is None:
                self._active.enter_context(average_buffers(pl_module.model, group))
            else:
                images = self._images(trainer, pl_module, self.batches)
                self._active.enter_context(recalibrated(pl_module.model, images, group=group))
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self.seconds = time.perf_counter() - start

    def swap(self) -> None:
        """Within an evaluation: exchanges its statistics and the live ones, bit for bit; twice is nothing."""
        exchange(self._buffers, self._live)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the live statistics back."""
        self._active.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Puts the live statistics back when an evaluation breaks off."""
        self._active.close()

    def _images(
        self, trainer: Trainer, module: AdderClassifier, batches: Iterable[LabelledImages]
    ) -> Iterator[Tensor]:
        for batch in batches:
            moved = trainer.strategy.batch_to_device(batch)
            yield module.normalised(moved.images)
