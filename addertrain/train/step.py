"""A training step from top to bottom: what happens to a batch, in order, and in which function.

Lightning's Trainer makes the step, so no function of ours contains all of it. STEP lists what such a function
would contain; `tests/train/test_step.py` records real steps, under every strategy, and compares. A run's
callbacks have the order of CALLBACKS, because Lightning always calls them in the order of its list;
`in_order` refuses any other.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from lightning.pytorch import Callback


class Act(NamedTuple):
    """One operation of a step: `where` is "module:function" within this package."""

    name: str
    where: str
    what: str


STEP = (
    Act(
        "take",
        "train.batches:labelled_images",
        "The loader's batch (data.loaders), one copy ahead on the device, as images and labels.",
    ),
    Act(
        "keep",
        "train.callbacks.guard:FiniteGuard.on_train_batch_start",
        "Statistics and counts are copied, where a step that is not finite may have to be taken back.",
    ),
    Act(
        "normalise",
        "train.module:AdderClassifier.normalised",
        "uint8 images become (x / 255 - mean) / std, on the device.",
    ),
    Act(
        "forward", "ops.functional:adder2d", "Eq. 2 in every adder layer; norms, ReLUs and sums between them."
    ),
    Act(
        "loss", "train.loss:classification_loss", "Cross-entropy, with label smoothing or a teacher's share."
    ),
    Act(
        "count",
        "train.classification_counts:ClassificationCounts.add",
        "Training loss and accuracy, summed on the device.",
    ),
    Act(
        "backward",
        "ops.grad_weight:adder2d_grad_weight",
        "Eq. 5 and 6, raw. DDP reduces a bucket of gradients as soon as it is full, ZeRO and FSDP2 likewise. "
        "Where a global batch comes in micro-batches, each goes from `take` to here, and the last one on.",
    ),
    Act(
        "look",
        "train.callbacks.guard:FiniteGuard.on_before_optimizer_step",
        "Loss and reduced gradients are finite, or the update is left out: one flag, the same on every rank.",
    ),
    Act(
        "clip",
        "train.callbacks.clipping:ClipNorm.on_before_optimizer_step",
        "The norm of all gradients but the adder filters', where the recipe has optim.clip_norm.",
    ),
    Act("norms", "optim.gradient_norms:sq_norms", "Each adder layer's squared norm, over all of its shards."),
    Act(
        "rate", "optim.scaling:local_rate", "Eq. 13: alpha = eta sqrt(k) / norm scales the layer's gradient."
    ),
    Act(
        "update", "optim.descent:descend", "Weight decay, momentum, Nesterov, and gamma times what they give."
    ),
    Act(
        "schedule",
        "train.module:AdderClassifier.rate_factor",
        "gamma for the next step: the schedule's factor, from 1 down to 0.",
    ),
    Act("measure", "train.callbacks.meter:TrainMeter.on_train_batch_end", "Loss and speed, now and then."),
    Act(
        "average",
        "train.callbacks.averaging:WeightAverage.on_train_batch_end",
        "The exponential average of the weights, where the recipe has train.ema_decay.",
    ),
    Act(
        "answer",
        "train.callbacks.guard:FiniteGuard.on_train_batch_end",
        "After a step that was not finite: statistics put back, a warning, a rollback or the end.",
    ),
    Act("record", "train.callbacks.tensorboard:TensorBoard.on_train_batch_end", "Points of the curves."),
    Act(
        "save",
        "train.callbacks.saving:SaveCheckpoints.on_train_batch_end",
        "The ranks agree whether a checkpoint is due, or a signal has come; a thread writes it.",
    ),
    Act("tell", "train.callbacks.progress:Progress.on_train_batch_end", "The line on the terminal."),
)

OWN = "a user's own"
CALLBACKS = (
    "TeacherViews",  # before anything is counted
    "RunClock",  # the time of a step includes what all others do
    "TrainMeter",
    "WeightAverage",
    "RecalibratedEvaluation",  # which reads the averages
    "FiniteGuard",  # before what acts on gradients that it has to see as they are
    "ClipNorm",
    "FallingPower",
    "TensorBoard",
    "StepProfile",
    OWN,
    "SaveCheckpoints",  # behind everything that has a state
    "Progress",  # what it tells of has been saved
)
"""The callbacks of a run by the names of their classes; most runs have some of them."""


def in_order(callbacks: Sequence[Callback]) -> list[Callback]:
    """Returns the list unchanged.

    Raises:
        AssertionError: two callbacks have another order than in CALLBACKS.
    """
    places = [(_place(type(callback)), type(callback).__name__) for callback in callbacks]
    for (place, name), (next_place, next_name) in itertools.pairwise(places):
        assert place <= next_place, f"{next_name} has to come before {name}: addertrain/train/step.py"
    return list(callbacks)


def _place(kind: type[Callback]) -> int:
    is_ours = kind.__module__.startswith("addertrain.")
    return CALLBACKS.index(kind.__name__ if is_ours else OWN)
