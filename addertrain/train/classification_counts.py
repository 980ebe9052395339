"""Sums over images: exact counts and a float64 loss, kept on the device and read only on request."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Score:
    """The score of a classifier on a number of images; `top1` and `top5` in percent."""

    loss: float
    top1: float
    top5: float
    num_images: int


@dataclass(frozen=True)
class Totals:
    """Summed loss, top-1 hits, top-5 hits and number of images."""

    loss: float = 0.0
    top1: int = 0
    top5: int = 0
    num_images: int = 0

    def __sub__(self, earlier: "Totals") -> "Totals":
        """The difference since `earlier`."""
        return Totals(
            self.loss - earlier.loss,
            self.top1 - earlier.top1,
            self.top5 - earlier.top5,
            self.num_images - earlier.num_images,
        )

    def score(self) -> Score:
        """Means per image; NaN if there is none."""
        if self.num_images == 0:
            return Score(loss=float("nan"), top1=float("nan"), top5=float("nan"), num_images=0)
        return Score(
            loss=self.loss / self.num_images,
            top1=100.0 * self.top1 / self.num_images,
            top5=100.0 * self.top5 / self.num_images,
            num_images=self.num_images,
        )


class ClassificationCounts:
    """Adds up batches without a host sync; `totals` sums over the ranks and reads the result.

    Args:
        top5: whether to count top-5 hits too, which need a sort; training does not.
    """

    def __init__(self, device: torch.device, *, top5: bool) -> None:
        self._top5 = top5
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._counts = torch.zeros(3, dtype=torch.int64, device=device)  # top-1 hits, top-5 hits, images

    @property
    def tensors(self) -> list[Tensor]:
        """The sums themselves; restoring earlier values leaves batches out."""
        return [self._loss, self._counts]

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor, mean_loss: Tensor) -> None:
        """Adds a batch: logits [N, classes], labels [N], and the batch's mean loss."""
        num_images = labels.numel()
        self._loss.add_(mean_loss.detach().double(), alpha=num_images)
        self._counts[2].add_(num_images)
        if self._top5:
            is_hit = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels.unsqueeze(1)
            self._counts[:2].add_(torch.stack([is_hit[:, 0].sum(), is_hit.sum()]))
        else:
            self._counts[0].add_((logits.argmax(1) == labels).sum())

    def totals(self) -> Totals:
        """The sums over all ranks; a collective if there are several, and a host sync."""
        loss = self._loss.clone()
        counts = self._counts.clone()
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(loss)
            dist.all_reduce(counts)
        top1, top5, num_images = counts.tolist()
        return Totals(loss.item(), top1, top5, num_images)
