"""The frozen teacher's mean logits over several views of every training image, before the first step."""

import time
from collections.abc import Callable, Iterable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from addertrain.data import Batch, MemoryLoader
from addertrain.train.distillation import DistillingClassifier


class TeacherViews(Callback):
    """Gives a `DistillingClassifier` its teacher's mean logits, the same on every rank.

    A resumed run computes them again: they take one forward pass of the teacher per view and image, and are
    in no checkpoint.

    Args:
        views: the number of augmented views of an image: those of the first epochs.
        say: prints a line.
    """

    def __init__(self, views: int, say: Callable[[str], None]) -> None:
        self._views = views
        self._say = say

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets the teacher look at the images; every rank looks at all of them."""
        assert isinstance(pl_module, DistillingClassifier)
        loader = trainer.train_dataloader
        assert isinstance(loader, MemoryLoader), "the recipe's checks ask for it"
        started = time.perf_counter()
        with trainer.precision_plugin.forward_context():
            logits = _logits(pl_module, loader.view(0))
            for number in range(1, self._views):
                logits += _logits(pl_module, loader.view(number))
        pl_module.mean_logits = logits / self._views
        self._say(
            f"the teacher has looked at {self._views} views of {len(logits)} images in "
            f"{time.perf_counter() - started:.0f} s"
        )


def _logits(module: DistillingClassifier, view: Iterable[Batch]) -> Tensor:
    """The teacher's logits of all images, float32 [N, classes], in the order of the data set."""
    images = (module.normalised(batch.images.to(module.device)) for batch in view)
    return torch.cat([module.teacher_logits(each).float() for each in images])
