"""The accuracy that an evaluation would show without recalibration: live weights, live running statistics."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from addertrain.train.callbacks.averaging import WeightAverage
from addertrain.train.callbacks.recalibration import FreshStatistics
from addertrain.train.counts import ClassificationCounts, Score
from addertrain.train.loss import classification_loss
from addertrain.train.module import AdderClassifier


class StaleScore(Callback):
    """Evaluates every batch a second time, as training left the network; comes after those it undoes.

    Costs a second forward pass over the test images. `score` is the last evaluation's, over all ranks, each
    with its own statistics.
    """

    def __init__(self, fresh: FreshStatistics, average: WeightAverage | None = None) -> None:
        self.score: Score | None = None
        self._fresh, self._average = fresh, average
        self._counts: ClassificationCounts | None = None

    @classmethod
    def among(cls, callbacks: Iterable[Callback]) -> "StaleScore | None":
        """The one among `callbacks`, if any."""
        return next((callback for callback in callbacks if isinstance(callback, cls)), None)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts counting at zero."""
        self._counts = ClassificationCounts(pl_module.device, top5=True)

    @torch.no_grad()
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts the batch once more."""
        assert isinstance(pl_module, AdderClassifier)
        assert self._counts is not None
        with trainer.precision_plugin.forward_context(), self._as_trained():
            logits = pl_module.judged(batch.images)
        self._counts.add(logits, batch.labels, classification_loss(logits, batch.labels))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sums over the ranks."""
        assert self._counts is not None
        self.score, self._counts = self._counts.totals().score(), None

    @contextmanager
    def _as_trained(self) -> Iterator[None]:
        swaps = [self._fresh.swap, *([self._average.swap] if self._average is not None else [])]
        for swap in swaps:
            swap()
        try:
            yield
        finally:
            for swap in swaps:
                swap()
