"""The computation of one step of training and of evaluation; callbacks do everything else."""

import math
from numbers import Integral
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from addertrain.nn import param_groups
from addertrain.optim import SCHEDULES, Schedule, build_optimizer, scaling_factor
from addertrain.recipe import OptimRecipe
from addertrain.train.batches import LabelledImages, labelled_images, unlabelled_images
from addertrain.train.classification_counts import ClassificationCounts, Score
from addertrain.train.lightning_internals import RUNNING_HOOK
from addertrain.train.loss import checked_logits, classification_loss, hard_labels
from addertrain.train.normalisation import normalised, scale_and_shift


class AdderClassifier(LightningModule):
    """Trains any image classifier with the recipe's optimizer and a schedule that falls step by step.

    A batch is a pair (images, labels), a dict with these keys, or an object with these attributes: uint8
    images [N, C, H, W], which are normalised on the device to (x / 255 - mean) / std, and labels [N]. A
    checkpoint holds only `model`, under its own names. docs/lightning.md shows the module in your own
    Trainer, and lists what it logs there.

    Args:
        model: maps normalised images to logits [N, classes].
        mean, std: per channel, for values in 0..1. None if images are floats that are already normalised.
        optim: rate, momentum, decay and ALR.
        schedule: a schedule, or a name in `addertrain.optim.SCHEDULES`.
        num_steps: length of the schedule in optimizer steps; Lightning's trainer would have to open the
            loaders for it before a checkpoint is loaded, and lose their position in the epoch.
        label_smoothing: of the training loss.
        channels_last: keeps the memory format of images; False converts them to channels-first.
        flip_evaluation: whether evaluations use the mean of the logits of an image and of its mirror image.
        batch_scale: the global batch size divided by the one that `optim.lr` is meant for.
        mean_share: the mean number of images of a batch per rank; None if every rank gets the same number.

    `train_counts` adds up all training batches of this session; `val_score` and `test_score` are those of the
    last `validate` (or evaluation while training) and `test`.

    Raises:
        ValueError: mean and std are not of values in 0..1, or `schedule` or `num_steps` is wrong.
    """

    checkpoint_prefix = "model."
    scale: Tensor | None
    shift: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: tuple[float, ...] | None,
        std: tuple[float, ...] | None,
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
        scale, shift = scale_and_shift(mean, std)
        self.model = model
        self.optim = optim
        self.schedule = _schedule(schedule)
        self.num_steps = _whole_steps(num_steps)
        self.label_smoothing = label_smoothing
        self.channels_last = channels_last
        self.flip_evaluation = flip_evaluation
        self.batch_scale = batch_scale
        self.mean_share = mean_share
        # Not in the checkpoint: they belong to the data set.
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.train_counts: ClassificationCounts | None = None
        self.evaluation_counts: ClassificationCounts | None = None
        self.val_score: Score | None = None
        self.test_score: Score | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        # Fifty times a step; Module's own way would cost 0.2 ms.
        if name == RUNNING_HOOK:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(self, images: Tensor) -> Tensor:
        """The logits of the images of a batch.

        Raises:
            TypeError: the network returns no tensor [N, classes].
        """
        return checked_logits(self.model(self.normalised(images)))

    def normalised(self, images: Tensor) -> Tensor:
        """Images as the floats that the model takes, in the same memory format or channels-first.

        Raises:
            TypeError: images are not uint8 or, without mean, not floats.
            ValueError: they have another number of channels than mean and std.
        """
        return normalised(images, self.scale, self.shift, channels_last=self.channels_last)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Converts every accepted batch to one type, for the steps and for all callbacks."""
        return batch if self.trainer.predicting else labelled_images(batch)

    def judged(self, images: Tensor) -> Tensor:
        """The logits that an evaluation uses."""
        logits: Tensor = self(images)
        return (logits + self(images.flip(3))) / 2 if self.flip_evaluation else logits

    def on_train_start(self) -> None:
        """Resets the counts, on the device that trains."""
        self.train_counts = ClassificationCounts(self.device, top5=False)

    def on_train_epoch_start(self) -> None:
        """Warns if the schedule has another length than the training; Python shows a warning once per
        line.
        """
        steps = planned_steps(self.trainer)
        if steps is not None and steps != self.num_steps:
            rank_zero_warn(
                f"AdderClassifier: expected num_steps to be the {steps} optimizer steps that this trainer "
                f"makes, got {self.num_steps}, so the rate {_misfit(self.num_steps, steps)}; count steps of "
                "one rank, after accumulation."
            )

    def training_step(self, batch: LabelledImages, batch_idx: int) -> Tensor:
        """The mean loss of a batch; weighted so that the mean over the ranks is the global batch's."""
        logits, loss = self.learn(batch)
        assert self.train_counts is not None
        self.train_counts.add(logits, hard_labels(batch.labels), loss)
        num_images = batch.images.shape[0]
        return loss if self.mean_share in (None, num_images) else loss * (num_images / self.mean_share)

    def on_train_batch_end(self, outputs: Any, batch: LabelledImages, batch_idx: int) -> None:
        """Logs the loss and γ for your own loggers and progress bars."""
        if self.trainer.loggers or self.trainer.progress_bar_callback is not None:
            self.log("train_loss", outputs["loss"], prog_bar=True)
            self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def learn(self, batch: LabelledImages) -> tuple[Tensor, Tensor]:
        """Logits and loss of a training batch; a subclass with another loss overrides it."""
        logits = self(batch.images)
        return logits, classification_loss(logits, batch.labels, label_smoothing=self.label_smoothing)

    def validation_step(self, batch: LabelledImages, batch_idx: int) -> None:
        """Counts a batch; nothing is communicated, so ranks may have different numbers of batches."""
        logits = self.judged(batch.images)
        assert self.evaluation_counts is not None
        self.evaluation_counts.add(logits, batch.labels, classification_loss(logits, batch.labels))

    def test_step(self, batch: LabelledImages, batch_idx: int) -> None:
        """As `validation_step`."""
        self.validation_step(batch, batch_idx)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Logits [N, classes] of a batch of images, with or without labels."""
        return self.judged(unlabelled_images(batch))

    def on_validation_epoch_start(self) -> None:
        """Starts counting at zero."""
        self.evaluation_counts = ClassificationCounts(self.device, top5=True)

    def on_test_epoch_start(self) -> None:
        """Starts counting at zero."""
        self.on_validation_epoch_start()

    def on_validation_epoch_end(self) -> None:
        """Sums the counts over the ranks, every image once, and logs them for callbacks and loggers."""
        self.val_score = self._evaluated("val")

    def on_test_epoch_end(self) -> None:
        """As `on_validation_epoch_end`."""
        self.test_score = self._evaluated("test")

    def _evaluated(self, prefix: str) -> Score:
        assert self.evaluation_counts is not None
        score, self.evaluation_counts = self.evaluation_counts.totals().score(), None
        metrics = {"loss": score.loss, "top1": score.top1, "top5": score.top5}
        self.log_dict({f"{prefix}_{name}": value for name, value in metrics.items()}, rank_zero_only=True)
        return score

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The recipe's optimizer over the model's parameter groups, and the schedule per step."""
        optimizer = build_optimizer([self._scaled(group) for group in self.parameter_groups()], self.optim)
        scheduler = LambdaLR(optimizer, lambda step: self.rate_factor(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def rate_factor(self, step: int) -> float:
        """The factor of every group's rate in the step after `step` others."""
        return self.schedule(step, self.num_steps)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameter groups for AdderSGD, which a network with `adder_sgd_groups` can change.

        That method gets the groups of `addertrain.nn.param_groups` and returns those to train with; a group
        may have a `weight_decay` and an `lr` of its own, which the schedule and the batch size scale.

        Raises:
            ValueError: it has lost a parameter, or put one into two groups.
        """
        optim = self.optim
        groups = param_groups(
            self.model, weight_decay=optim.weight_decay, decay_norm_and_bias=optim.decay_norm_and_bias
        )
        regroup = getattr(self.model, "adder_sgd_groups", None)
        if regroup is None:
            return groups
        expected = [id(parameter) for group in groups for parameter in group["params"]]
        groups = list(regroup(groups))
        found = [id(parameter) for group in groups for parameter in group["params"]]
        if sorted(found) != sorted(expected):
            raise ValueError(
                f"adder_sgd_groups: expected each of {len(expected)} parameters in exactly one group, got "
                f"{len(set(found))} of them in {len(found)} places; put every parameter into one group."
            )
        return groups

    def _scaled(self, group: dict[str, Any]) -> dict[str, Any]:
        """The group with rate and decay scaled for the batch size; see `optim.batch_scaling`."""
        optim = self.optim
        rate, decay = (
            (optim.adder_lr_scaling, optim.adder_decay_scaling)
            if group["adder"]
            else (optim.lr_scaling, "none")
        )
        return {
            **group,
            "lr": group.get("lr", optim.lr) * scaling_factor(rate, self.batch_scale),
            "weight_decay": group["weight_decay"] * scaling_factor(decay, self.batch_scale),
        }


def _schedule(schedule: str | Schedule) -> Schedule:
    if not isinstance(schedule, str):
        return schedule
    if schedule not in SCHEDULES:
        raise ValueError(
            f"AdderClassifier: expected a schedule of {', '.join(SCHEDULES)}, or a function, got "
            f"{schedule!r}."
        )
    return SCHEDULES[schedule]


def _whole_steps(num_steps: int) -> int:
    if not isinstance(num_steps, Integral) or num_steps < 1:
        raise ValueError(
            f"AdderClassifier: expected num_steps as a whole number of 1 or more, got {num_steps!r}; pass "
            "the number of optimizer steps of the whole training."
        )
    return int(num_steps)


def planned_steps(trainer: Trainer) -> int | None:
    """Optimizer steps of a whole training by `trainer`, whose loader is open; None if no end is set."""
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    steps = math.inf
    if epochs is not None and epochs >= 0 and not math.isinf(batches):
        steps = epochs * -(-batches // trainer.accumulate_grad_batches)
    if trainer.max_steps >= 0:
        steps = min(steps, trainer.max_steps)
    return None if math.isinf(steps) else int(steps)


def _misfit(num_steps: int, steps: int) -> str:
    return "stays at its last value for the rest" if num_steps < steps else "does not reach its last value"
