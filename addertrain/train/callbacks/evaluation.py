"""Makes a Trainer evaluate the network that this package reports: Lightning's hooks around `evaluated`."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from addertrain.train.batches import labelled_images
from addertrain.train.classification_counts import ClassificationCounts, Score
from addertrain.train.evaluation import Evaluated, evaluated
from addertrain.train.loaders import FirstBatches
from addertrain.train.loss import classification_loss
from addertrain.train.module import AdderClassifier
from addertrain.train.strategies.sharded import whole_network


class RecalibratedEvaluation(Callback):
    """Gives every evaluation the network that is reported, and restores the live one bit for bit.

    BatchNorm's running means lag behind adder weights that still move; with statistics recomputed on a few
    training batches, accuracy in mid-training is meaningful. Training is not affected: weights, statistics
    and random numbers do not change. It has to come before callbacks that save when an evaluation is
    interrupted.

    `seconds` is the time in which the last evaluation recomputed statistics. `uncalibrated_score` is the last
    score without recalibration, over all ranks, each with its own statistics.

    Args:
        batches: training batches, read again by every evaluation, on each rank its share; never the loader
            that trains, whose position would be lost. In a training, `FirstBatches` look like those of the
            present epoch. None uses the mean over the ranks' statistics instead.
        weights: returns averaged weights by the model's parameter names; None uses the live ones.
        int8: training batches, the same on every rank, that calibrate adder layers in 8 bits.
        with_uncalibrated: whether to evaluate every batch a second time without recalibration.
    """

    def __init__(
        self,
        batches: Iterable[Any] | None,
        *,
        weights: Callable[[], Mapping[str, Tensor]] | None = None,
        int8: Iterable[Any] | None = None,
        with_uncalibrated: bool = False,
    ) -> None:
        self.seconds = 0.0
        self.uncalibrated_score: Score | None = None
        self._batches, self._weights, self._int8 = batches, weights, int8
        self._with_uncalibrated = with_uncalibrated
        self._active = ExitStack()
        self._network: Evaluated | None = None
        self._counts: ClassificationCounts | None = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Installs the network to be evaluated."""
        if self._with_uncalibrated:
            self._counts = ClassificationCounts(pl_module.device, top5=True)
        self._enter(trainer, pl_module)

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
        """Counts the batch again without recalibration."""
        if self._counts is None:
            return
        assert isinstance(pl_module, AdderClassifier)
        assert self._network is not None
        with trainer.precision_plugin.forward_context(), self._network.as_trained():
            logits = pl_module.judged(batch.images)
        self._counts.add(logits, batch.labels, classification_loss(logits, batch.labels))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the live network, and sums the second counts over the ranks."""
        self._leave()
        if self._counts is not None:
            self.uncalibrated_score, self._counts = self._counts.totals().score(), None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As `on_validation_start`."""
        self.on_validation_start(trainer, pl_module)

    def on_test_batch_end(self, *arguments: Any, **named: Any) -> None:
        """As `on_validation_batch_end`."""
        self.on_validation_batch_end(*arguments, **named)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As `on_validation_end`."""
        self.on_validation_end(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Installs the same network for `Trainer.predict`."""
        self._enter(trainer, pl_module)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the live network."""
        self._leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restores the live network when an evaluation is interrupted."""
        self._leave()

    def _enter(self, trainer: Trainer, module: LightningModule) -> None:
        """Enters the unsharded network if the strategy shards parameters, then weights, layers and
        statistics.
        """
        assert isinstance(module, AdderClassifier)
        self._active.enter_context(whole_network(trainer))
        weights = self._weights() if self._weights is not None else None
        start = time.perf_counter()
        with trainer.precision_plugin.forward_context(), isolate_rng():
            network = evaluated(
                module,
                weights=weights,
                statistics=_Images(trainer, self._batches) if self._batches is not None else None,
                int8=_Images(trainer, self._int8) if self._int8 is not None else None,
            )
            self._network = self._active.enter_context(network)
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        self.seconds = time.perf_counter() - start

    def _leave(self) -> None:
        self._network = None
        self._active.close()


class _Images:
    """The images of batches, on the trainer's device, for every kind of batch that the classifier accepts."""

    def __init__(self, trainer: Trainer, batches: Iterable[Any]) -> None:
        if isinstance(batches, FirstBatches) and trainer.state.fn == TrainerFn.FITTING:
            batches = batches.like(trainer.current_epoch)
        self._trainer, self._batches = trainer, batches

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self._batches:
            # For `predict` the trainer moves a pair as it is.
            yield labelled_images(self._trainer.strategy.batch_to_device(batch)).images
