"""An evaluation in 8 bits: ranges from a few training batches, then adder layers on bytes."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from addertrain.nn import recalibrated
from addertrain.nn.int8 import calibrate, in_int8
from addertrain.train.batches import LabelledImages
from addertrain.train.module import AdderClassifier


class Int8Layers(Callback):
    """Evaluates with adder layers in 8 bits. Statistics that are made fresh after it see those layers.

    Args:
        batches: training batches, the same ones on every rank; they are read twice.
    """

    def __init__(self, batches: Iterable[LabelledImages]) -> None:
        self.batches = batches
        self._active = ExitStack()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds the ranges that layers see behind fresh norms, and swaps the layers in."""
        assert isinstance(pl_module, AdderClassifier)
        with trainer.precision_plugin.forward_context():
            with recalibrated(pl_module.model, self._images(trainer, pl_module)):
                grids = calibrate(pl_module.model, self._images(trainer, pl_module))
            self._active.enter_context(in_int8(pl_module.model, grids))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the layers back."""
        self._active.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Puts the layers back when an evaluation breaks off."""
        self._active.close()

    def _images(self, trainer: Trainer, module: AdderClassifier) -> Iterator[Tensor]:
        for batch in self.batches:
            yield module.normalised(trainer.strategy.batch_to_device(batch).images)
