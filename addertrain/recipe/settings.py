"""Every key of a recipe, with its type, its default and what it means.

The dataclasses only hold values. What a key means stands beside it; `--help` and the errors say the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from addertrain.recipe.data_sets import DATA_SETS


@dataclass(frozen=True)
class OneOf:
    """The names that a key knows; besides them it takes a function of a user's own."""

    names: tuple[str, ...]


NETWORKS = (
    "lenet5bn",
    "lenet++",
    "vgg_small",
    "resnet8",
    "resnet20",
    "resnet32",
    "resnet18",
    "resnet50",
    "resnet101",
)


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """The network."""

    name: Annotated[str, "which network", OneOf(NETWORKS)]
    args: Annotated[
        Mapping[str, Any], "keyword arguments of a network of your own; --model.args.NAME VALUE sets one"
    ] = field(default_factory=dict, hash=False)
    kind: Annotated[
        Literal["adder", "conv", "binary"], "adder layers, the convolutional twin, or XNOR-Net's layers"
    ] = "adder"
    head: Annotated[
        Literal["norm", "linear"], "last layer: a convolution and a norm on the logits, or torchvision's"
    ] = "norm"
    filter_gradient: Annotated[Literal["full", "sign"], "of adder layers at p = 1: X − F, or its sign"] = (
        "full"
    )
    input_gradient: Annotated[
        Literal["ht", "sign", "ht_scaled"],
        "of adder layers at p = 1: F − X clipped to −1 .. 1, its sign, or c (F − X) clipped",
    ] = "ht"
    input_slope: Annotated[float, "the c of model.input_gradient ht_scaled"] = 1.0


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """The images, and how they reach the network."""

    name: Annotated[
        str,
        "which data set; folder: any with train/CLASS/ and val/CLASS/ in data.root",
        OneOf(tuple(DATA_SETS)),
    ]
    args: Annotated[
        Mapping[str, Any], "keyword arguments of a data set of your own; --data.args.NAME VALUE sets one"
    ] = field(default_factory=dict, hash=False)
    root: Annotated[str | None, "folder of the data sets; null means $ADDERTRAIN_DATA, else ./data"] = None
    loader: Annotated[
        Literal["memory", "ffcv", "torchvision"],
        "what reads the images: all at once, or pictures from .beton files or from the originals",
    ] = "memory"
    global_batch_size: Annotated[int, "images in one step, over all ranks together"]
    augmentation: Annotated[
        Literal["none", "crop_flip", "resized_crop_flip"], "what varies the training images"
    ] = "none"
    image_size: Annotated[int, "height and width that pictures are resized to (ffcv, torchvision)"] = 224
    first_image_size: Annotated[
        int | None, "height and width up to epoch grow_from, in steps of 32 from there on; null: image_size"
    ] = None
    grow_from: Annotated[int, "the epoch after which training images grow"] = 0
    grow_until: Annotated[int, "the epoch from which on they have image_size"] = 0
    eval_image_size: Annotated[int | None, "height and width in evaluations; null: image_size"] = None
    min_crop_area: Annotated[float, "smallest share of a picture that resized_crop_flip shows"] = 0.08
    center_crop: Annotated[float, "side of what an evaluation sees, by the picture's shorter side"] = 0.875
    mixup: Annotated[float, "blend pairs of images by Beta(α, α), α up to 1; 0: not at all"] = 0.0
    cutmix: Annotated[float, "paste a part of its partner into an image, α up to 1; 0: not at all"] = 0.0
    randaugment: Annotated[int, "a random operation an image, of magnitude up to 10; 0: none"] = 0
    threads: Annotated[int | None, "decoding threads a rank; null: the rank's share of the cores"] = None
    timeout_seconds: Annotated[float, "how long a batch of pictures may take to arrive"] = 300.0


@dataclass(frozen=True, kw_only=True)
class OptimRecipe:
    """The optimizer, with the adder layers' adaptive learning rate (ALR)."""

    name: Annotated[
        Literal["sgd", "adamw", "lion"],
        "SGD, whose adder gradients ALR scales, or AdamW or Lion, whose adder updates it scales",
    ] = "sgd"
    lr: Annotated[float, "the global rate γ, before the schedule"]
    momentum: Annotated[float, "momentum of optim.name sgd"] = 0.9
    nesterov: Annotated[bool, "optim.name sgd: Nesterov's form of the momentum"] = True
    beta1: Annotated[float, "optim.name adamw and lion: decay of the mean of gradients in a step"] = 0.9
    beta2: Annotated[
        float | None, "the same: decay of the mean of squares, Lion's momentum; null: 0.999, Lion's 0.99"
    ] = None
    weight_decay: Annotated[
        float,
        "weight decay; ALR scales neither SGD's, which is added to the gradient, nor AdamW's and Lion's",
    ]
    decay_norm_and_bias: Annotated[bool, "whether norms and biases decay too"] = True
    eta: Annotated[
        float, "η: the RMS that ALR gives to an adder layer's gradient, or to its update by AdamW or Lion"
    ] = 0.2
    alr: Annotated[
        Literal["global", "local", "off", "increased"],
        "ALR after the reduction over ranks, before it (for comparison), not at all, or a constant factor",
    ] = "global"
    increase: Annotated[float, "the constant factor of alr: increased"] = 100.0
    label_smoothing: Annotated[float, "share of every label that goes to all classes alike"] = 0.0
    base_batch_size: Annotated[
        int | None, "global batch that optim.lr is meant for; null: the recipe's own, nothing is scaled"
    ] = None
    lr_scaling: Annotated[
        Literal["none", "sqrt", "linear"], "how γ of all but adder layers follows batch / base_batch_size"
    ] = "linear"
    adder_lr_scaling: Annotated[
        Literal["none", "sqrt", "linear"], "how γ of adder layers does, whose steps have one length"
    ] = "sqrt"
    adder_decay_scaling: Annotated[
        Literal["none", "sqrt", "linear"], "how their weight decay does; as γ: RMS(w) stays as it was"
    ] = "none"
    clip_norm: Annotated[
        float | None, "largest norm of all gradients but the adder layers' together; null: not clipped"
    ] = None


@dataclass(frozen=True, kw_only=True)
class ScheduleRecipe:
    """How long to train, and how the rate falls."""

    name: Annotated[
        Literal["cosine", "polynomial", "step"], "how the rate falls: step by step to 0, or in large steps"
    ] = "cosine"
    epochs: Annotated[int, "passes over the training images"]
    warmup_epochs: Annotated[float, "epochs in which the rate rises linearly first; 0: none"] = 0.0
    power: Annotated[float, "schedule.name polynomial: the rate falls as (1 - progress)^power"] = 1.0
    step_epochs: Annotated[int, "schedule.name step: epochs between two falls of the rate"] = 30
    step_factor: Annotated[float, "schedule.name step: what the rate is multiplied by at each fall"] = 0.1
    p_start: Annotated[
        float, "power of the distance that adder layers begin with, 1 to 2; it falls step by step to 1"
    ] = 1.0
    p_epochs: Annotated[int, "epochs in which the power falls from schedule.p_start to 1"] = 0


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """How the run is carried out."""

    strategy: Annotated[
        Literal["auto", "ddp", "zero1", "zero2", "zero3", "fsdp"],
        "how ranks share the work: whole, or cut by DeepSpeed's ZeRO or FSDP2; auto: ddp where several",
    ] = "auto"
    precision: Annotated[
        Literal["fp32", "bf16-mixed", "fp16-mixed"], "arithmetic of the forward and backward passes"
    ] = "fp32"
    accumulate: Annotated[int, "micro-batches that a global batch is cut into, to save memory"] = 1
    channels_last: Annotated[bool, "whether images lie channels-last in memory, or channels first"] = True
    compile: Annotated[
        Literal["off", "inductor", "aot_eager"], "torch.compile's backend; aot_eager finds errors, no speed"
    ] = "off"
    kernels: Annotated[
        Literal["compiled", "reference"],
        "compiled: compare the kernels with the reference before they are trusted, and stop where one is "
        "wrong; reference: the slow operators in plain torch",
    ] = "compiled"
    seed: Annotated[int, "start of every random draw: weights, order, augmentation"] = 0
    sync_batchnorm: Annotated[
        bool, "normalise by the images of all ranks together, so that any number of ranks trains alike"
    ] = False
    recalibrate_batches: Annotated[
        int, "training batches that recompute BatchNorm's statistics before an evaluation; 0: none"
    ] = 10
    evaluate_uncalibrated: Annotated[
        bool, "whether evaluations while training also score the network without recalibration"
    ] = True
    flip_evaluation: Annotated[
        bool, "whether evaluations read the mean of the logits of an image and of its mirror image"
    ] = False
    ema_decay: Annotated[
        float,
        "evaluate the exponential average of the weights, with this decay per step; 0: the live weights",
    ] = 0.0
    keep_checkpoints: Annotated[int, "how many of the last checkpoints stay"] = 3
    save_every_steps: Annotated[
        int | None, "steps between checkpoints inside an epoch; null: only at its end"
    ] = None
    save_every_minutes: Annotated[float | None, "the same by the clock, counted from the last save"] = None
    on_save_failure: Annotated[
        Literal["warn", "stop"],
        "what a checkpoint does that cannot be written: a warning, and training goes on; or the end. The "
        "last one of a run, and one for a signal, are an end in any case",
    ] = "warn"
    on_nonfinite: Annotated[
        Literal["stop", "skip", "rollback"],
        "what a loss or gradient that is not finite does: end the run, leave the step out, or go back to the "
        "last checkpoint and on in another order",
    ] = "stop"
    nonfinite_limit: Annotated[int, "steps left out, or rollbacks, before the next one ends the run"] = 10
    timeout_seconds: Annotated[float, "how long ranks wait for one that does not answer"] = 600.0


@dataclass(frozen=True, kw_only=True)
class DistillRecipe:
    """Learning from a convolutional network as well as from labels."""

    teacher: Annotated[
        Literal["none", "twin", "frozen"], "nobody, a twin that trains at the same time, or a finished run"
    ] = "none"
    checkpoint: Annotated[str | None, "distill.teacher frozen: its run directory or checkpoint"] = None
    weight: Annotated[float, "share of the loss on logits that follows the teacher, not the labels"] = 0.5
    temperature: Annotated[float, "what divides both networks' logits before they are compared"] = 4.0
    feature_weight: Annotated[float, "weight of matching intermediate features; 0: logits alone"] = 1.0
    kernel_width: Annotated[float, "σ of the kernel exp(−z / 2σ²) that features pass before matching"] = 1.0


@dataclass(frozen=True, kw_only=True)
class ExpectedRecipe:
    """What the recipe should give, and who says so."""

    top1: Annotated[float | None, "expected top-1 accuracy in percent; null: not measured"] = None
    tolerance: Annotated[float, "how far from it, in percentage points, still counts as reproduced"] = 0.0
    seeds: Annotated[int, "how many seeds the expected value is the mean of"] = 1
    source: Annotated[str, "where the expected value comes from"] = ""
    data_sha256: Annotated[
        str | None, "fingerprint of the data that it was measured on (reproduce prints it); null: any"
    ] = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run, completely described."""

    name: Annotated[str, "name of the recipe, and of its folder under runs/"]
    model: ModelRecipe
    data: DataRecipe
    optim: OptimRecipe
    schedule: ScheduleRecipe
    train: TrainRecipe
    distill: DistillRecipe = DistillRecipe()
    expected: ExpectedRecipe

    def steps_per_epoch(self, num_images: int) -> int:
        """Optimizer steps of an epoch of `num_images` training images: its whole global batches.

        However many ranks or micro-batches (`train.accumulate`) share a batch; 0 where there is no whole one.
        """
        return num_images // self.data.global_batch_size
