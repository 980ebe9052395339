"""The frozen teacher's mean logits over several views of every training image, before the first step."""

import time
from collections.abc import Callable, Iterable, Iterator

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from addertrain.data import MemoryLoader
from addertrain.data.types import Batch
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
        views = (loader.view(number) for number in range(self._views))
        pl_module.mean_logits = mean_logits(pl_module.teacher_logits, _on(views, pl_module.device))
        self._say(
            f"the teacher has looked at {self._views} views of {len(pl_module.mean_logits)} images in "
            f"{time.perf_counter() - started:.0f} s"
        )


@torch.no_grad()
def mean_logits(teacher_logits: Callable[[Tensor], Tensor], views: Iterable[Iterable[Batch]]) -> Tensor:
    """The mean of the logits over the views, float32 [N, classes], in the order of the data set.

    Args:
        teacher_logits: maps uint8 images to logits.
        views: each yields all images, in the order of the data set.
    """
    total, count = torch.zeros(()), 0
    for view in views:
        total = total + torch.cat([teacher_logits(batch.images).float() for batch in view])
        count += 1
    return total / count


def _on(views: Iterable[Iterable[Batch]], device: torch.device) -> Iterator[Iterator[Batch]]:
    for view in views:
        yield (Batch(*(part.to(device) for part in batch)) for batch in view)
