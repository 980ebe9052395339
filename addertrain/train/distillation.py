"""Training with a convolutional teacher, following the outline of PKKD (arXiv 2009.13044).

    loss = (1 - w) CE(student, labels) + w T^2 KL(teacher / T || student / T)        the blend of logits
         + b * distance of the features (`matching`)
         + CE(teacher, labels), if the teacher (the convolutional baseline) learns at the same time

The teacher gets no gradient from the student. Defaults of w, T and b are this project's: the paper's are not
in its abstract, and its code was not published.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from addertrain.data.types import Batch
from addertrain.nn import param_groups
from addertrain.recipe import DistillRecipe
from addertrain.train.batches import LabelledImages
from addertrain.train.feature_matching import FeatureMatching, Recorder, matched_layers
from addertrain.train.loss import classification_loss
from addertrain.train.module import AdderClassifier


def blended_loss(
    student: Tensor, teacher: Tensor, hard_loss: Tensor, *, weight: float, temperature: float
) -> Tensor:
    """(1 - w) hard_loss + w T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over a batch.

    T^2 keeps the size of the gradient independent of the temperature. The teacher's logits get no gradient.
    """
    soft = functional.kl_div(
        functional.log_softmax(student.float() / temperature, dim=1),
        functional.log_softmax(teacher.detach().float() / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (1.0 - weight) * hard_loss + weight * temperature**2 * soft


class DistillingClassifier(AdderClassifier):
    """An `AdderClassifier` whose model also learns from a teacher. Teacher and projections are its auxiliary
    modules (`companions`): trained and saved with it, separately from the model.

    Args:
        teacher: maps normalised images to logits of the same classes.
        distill: how to learn from it; a "frozen" teacher does not change.
        num_classes: the number of logits.
        teacher_dtype: of autocast around the teacher: 16 bits in which it was trained; None computes it in
            the precision of the run.
        settings: those of `AdderClassifier`.

    With `distill.views` the teacher's logits in the loss are those of `mean_logits` [N, classes], which
    `TeacherViews` sets before the first step, and a step computes no teacher.

    Raises:
        ValueError: features are to be matched, and the networks have no common layer.
    """

    mean_logits: Tensor | None = None

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module,
        *,
        distill: DistillRecipe,
        num_classes: int,
        teacher_dtype: torch.dtype | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model, **settings)
        self.distill = distill
        self._teacher_dtype = teacher_dtype
        self.companions = nn.ModuleDict({"teacher": teacher})
        names: list[str] = []
        if distill.feature_weight > 0:
            widths = matched_layers(model, teacher, num_classes=num_classes)
            self.companions["matching"] = FeatureMatching(widths, kernel_width=distill.kernel_width)
            names = list(widths)
        if distill.teacher == "frozen":
            teacher.requires_grad_(False).eval()
        self._student_features, self._teacher_features = Recorder(model, names), Recorder(teacher, names)

    def train(self, mode: bool = True) -> "DistillingClassifier":
        """As usual, but a frozen teacher's statistics do not change."""
        super().train(mode)
        if self.distill.teacher == "frozen":
            self.companions["teacher"].eval()
        return self

    def learn(self, batch: LabelledImages) -> tuple[Tensor, Tensor]:
        """The student's logits, and the loss above."""
        settings, images = self.distill, self.normalised(batch.images)
        with self._student_features.recording() as ours, self._teacher_features.recording() as theirs:
            logits = self.model(images)
            teacher_logits = self._answer(batch, images)
            loss = blended_loss(
                logits, teacher_logits, self._hard_loss(logits, batch), weight=settings.weight,
                temperature=settings.temperature,
            )  # fmt: skip
            if settings.feature_weight > 0:
                loss = loss + settings.feature_weight * self.companions["matching"](ours, theirs)
        if settings.teacher == "twin":
            loss = loss + self._hard_loss(teacher_logits, batch)
        return logits, loss

    def teacher_logits(self, normalised: Tensor) -> Tensor:
        """The teacher's logits of normalised images, without autograd if it is frozen."""
        dtype = self._teacher_dtype
        precision = torch.autocast(normalised.device.type, dtype) if dtype else nullcontext()
        with torch.set_grad_enabled(self.distill.teacher == "twin"), precision:
            logits: Tensor = self.companions["teacher"](normalised)
        return logits

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The model's groups; auxiliary modules that learn are in the groups of plain SGD."""
        groups = super().parameter_groups()
        beside = param_groups(
            self.companions,
            weight_decay=self.optim.weight_decay,
            decay_norm_and_bias=self.optim.decay_norm_and_bias,
        )
        for group, more in zip(groups[1:], beside[1:], strict=True):
            group["params"] += [param for param in more["params"] if param.requires_grad]
        return groups

    def _answer(self, batch: LabelledImages, normalised: Tensor) -> Tensor:
        """What the teacher says of a batch."""
        if self.distill.views:
            assert isinstance(batch, Batch), "the loaders of addertrain.data number the images"
            assert self.mean_logits is not None, "TeacherViews sets them"
            return self.mean_logits[batch.samples]
        return self.teacher_logits(normalised)

    def _hard_loss(self, logits: Tensor, batch: LabelledImages) -> Tensor:
        return classification_loss(logits, batch.labels, label_smoothing=self.label_smoothing)
