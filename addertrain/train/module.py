"""What one step of training and of evaluation computes; all around the step is a callback's business."""

from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from addertrain.nn import param_groups
from addertrain.optim import SCHEDULES, AdderSGD, Schedule, scaling_factor
from addertrain.recipe import OptimRecipe
from addertrain.train.counts import ClassificationCounts, Score
from addertrain.train.loss import classification_loss, hard_labels


class LabelledImages(Protocol):
    """A batch: what every loader of `addertrain.data` yields."""

    @property
    def images(self) -> Tensor:
        """uint8 [N, C, H, W]."""

    @property
    def labels(self) -> Tensor:
        """int64 [N]; in training also float [N, classes], the mixtures of mixup and cutmix."""


class AdderClassifier(LightningModule):
    """Trains any image classifier with AdderSGD and a schedule that falls step by step.

    Batches hold uint8 images [N, C, H, W] and labels [N]; images are normalised on the device to (x / 255 -
    mean) / std. A checkpoint holds `model` alone, under its own names.

    Args:
        model: maps normalised images to logits [N, classes].
        mean, std: per channel, for values in 0..1.
        optim: rate, momentum, decay and ALR.
        schedule: a schedule, or a name in `addertrain.optim.SCHEDULES`.
        num_steps: length of the schedule in optimizer steps; asking Lightning's trainer for it instead would
            make it open the loaders before a checkpoint is loaded, and lose their place in an epoch.
        label_smoothing: of the training loss.
        channels_last: takes images as they lie; False: makes them channels first.
        flip_evaluation: whether evaluations read the mean of an image's logits and its mirror image's.
        batch_scale: the global batch over the one that `optim.lr` is meant for.
        mean_share: images of a batch that a rank gets on average; None: every rank gets as many.

    `train_counts` adds up all training batches of this session; `val_score` is the last evaluation's.
    """

    checkpoint_prefix = "model."

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        optim: OptimRecipe,
        schedule: str | Schedule = "cosine",
        num_steps: int,
        label_smoothing: float = 0.0,
        channels_last: bool = True,
        flip_evaluation: bool = False,
        batch_scale: float = 1.0,
        mean_share: float | None = None,
    ) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(
                f"AdderClassifier: expected mean and std per channel, got {len(mean)} means and {len(std)}."
            )
        self.model = model
        self.optim = optim
        self.schedule = SCHEDULES[schedule] if isinstance(schedule, str) else schedule
        self.num_steps = num_steps
        self.label_smoothing = label_smoothing
        self.channels_last = channels_last
        self.flip_evaluation = flip_evaluation
        self.batch_scale = batch_scale
        self.mean_share = mean_share
        # Not in the checkpoint: they belong to the data set. x * scale - shift is one fused pass over the
        # images.
        scale = 1.0 / (255.0 * torch.tensor(std, dtype=torch.float64))
        shift = torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.register_buffer("scale", scale.float().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().view(1, -1, 1, 1), persistent=False)
        self.train_counts: ClassificationCounts | None = None
        self.val_counts: ClassificationCounts | None = None
        self.val_score: Score | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook here fifty times a step; Module's own way would cost 0.2 ms.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of uint8 images."""
        logits: Tensor = self.model(self.normalised(images))
        return logits

    def normalised(self, images: Tensor) -> Tensor:
        """uint8 images as the floats that the model takes, in the same memory layout or channels first."""
        if not self.channels_last:
            images = images.contiguous()
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        return (images.to(scale.dtype) * scale).sub_(shift)

    def judged(self, images: Tensor) -> Tensor:
        """The logits by which an evaluation judges uint8 images."""
        logits: Tensor = self(images)
        return (logits + self(images.flip(3))) / 2 if self.flip_evaluation else logits

    def on_train_start(self) -> None:
        """Starts counting at zero, on the device that trains."""
        self.train_counts = ClassificationCounts(self.device, top5=False)

    def training_step(self, batch: LabelledImages, batch_idx: int) -> Tensor:
        """The mean loss of a batch; weighted so that the mean over the ranks is the global batch's."""
        logits, loss = self.learn(batch)
        assert self.train_counts is not None
        self.train_counts.add(logits, hard_labels(batch.labels), loss)
        num_images = batch.images.shape[0]
        return loss if self.mean_share in (None, num_images) else loss * (num_images / self.mean_share)

    def learn(self, batch: LabelledImages) -> tuple[Tensor, Tensor]:
        """Logits and loss of a training batch; what a subclass that learns otherwise replaces."""
        logits = self(batch.images)
        return logits, classification_loss(logits, batch.labels, label_smoothing=self.label_smoothing)

    def validation_step(self, batch: LabelledImages, batch_idx: int) -> None:
        """Counts a batch; nothing is communicated, so ranks may have different numbers of batches."""
        logits = self.judged(batch.images)
        assert self.val_counts is not None
        self.val_counts.add(logits, batch.labels, classification_loss(logits, batch.labels))

    def on_validation_epoch_start(self) -> None:
        """Starts counting at zero."""
        self.val_counts = ClassificationCounts(self.device, top5=True)

    def on_validation_epoch_end(self) -> None:
        """Sums the counts over the ranks, every image once, and tells Lightning's own callbacks."""
        assert self.val_counts is not None
        self.val_score, self.val_counts = self.val_counts.totals().score(), None
        metrics = {
            "val_loss": self.val_score.loss,
            "val_top1": self.val_score.top1,
            "val_top5": self.val_score.top5,
        }
        self.log_dict(metrics, rank_zero_only=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdderSGD over the model's parameter groups, and the schedule per step."""
        optim = self.optim
        optimizer = AdderSGD(
            [self._scaled(group) for group in self.parameter_groups()],
            lr=optim.lr,
            momentum=optim.momentum,
            weight_decay=optim.weight_decay,
            nesterov=optim.nesterov,
            eta=optim.eta,
            alr=optim.alr,
            increase=optim.increase,
        )
        scheduler = LambdaLR(optimizer, lambda step: self.schedule(step, self.num_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters as AdderSGD wants them."""
        optim = self.optim
        return param_groups(
            self.model, weight_decay=optim.weight_decay, decay_norm_and_bias=optim.decay_norm_and_bias
        )

    def _scaled(self, group: dict[str, Any]) -> dict[str, Any]:
        """The group with the rate and decay that the batch asks for; see `optim.batch_scaling`."""
        optim = self.optim
        rate, decay = (
            (optim.adder_lr_scaling, optim.adder_decay_scaling)
            if group["adder"]
            else (optim.lr_scaling, "none")
        )
        return {
            **group,
            "lr": optim.lr * scaling_factor(rate, self.batch_scale),
            "weight_decay": group["weight_decay"] * scaling_factor(decay, self.batch_scale),
        }
