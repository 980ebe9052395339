"""A frozen teacher looks at every view of the training images once, and its logits are kept.

With `data.views` the augmentation of an epoch comes back after so many epochs, and a frozen teacher then says
the same again. Views come in pairs of mirror images, and the network learns from the mean of the teacher's
logits of the two, a better teacher than either. They are computed when an epoch first shows one of the two:
for all images, in the order of the data set and in batches of one size, so that they do not depend on the
epoch's order, on the ranks or on an interruption. They are in no checkpoint; a resumed run computes those
that it still needs.
"""

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from addertrain.data import Batch, MemoryLoader
from addertrain.train.distillation import DistillingClassifier


class TeacherViews(Callback):
    """Gives a `DistillingClassifier` its teacher's logits of the view that the epoch shows.

    Every rank looks at all images, because the next epoch shows it others. The logits of a pair of views are
    kept in half precision: 2 bytes an image and class.

    Args:
        views: the number of views, `data.views`.
    """

    def __init__(self, views: int) -> None:
        self._views = views
        self._logits: dict[int, Tensor] = {}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Lets the teacher look, in the first batch of a pair of views that is new to it."""
        assert isinstance(pl_module, DistillingClassifier)
        pair = trainer.current_epoch % self._views // 2
        if pair not in self._logits:
            loader = trainer.train_dataloader
            assert isinstance(loader, MemoryLoader), "the recipe's checks ask for it"
            first, second = (_logits(pl_module, loader.view(2 * pair + mirrored)) for mirrored in (0, 1))
            self._logits[pair] = ((first + second) / 2).half()
        pl_module.view_logits = self._logits[pair]


@torch.no_grad()
def _logits(module: DistillingClassifier, batches: Iterable[Batch]) -> Tensor:
    """The teacher's logits of all images, float32 [N, classes]."""
    return torch.cat([module.teacher_logits(batch.images.to(module.device)).float() for batch in batches])
