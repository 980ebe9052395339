"""Every key of a recipe, with its type, its default and its meaning.

The dataclasses only hold values. The text of a key is what `addertrain fit --help` prints and what errors
quote; the docstring of a section is its title and its introduction in that help.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from addertrain.recipe.data_sets import DATA_SETS


@dataclass(frozen=True)
class OneOf:
    """The names that a key knows; it also takes a function of your own, as package.module:function."""

    names: tuple[str, ...]


NETWORKS = (
    "lenet5bn",
    "lenet++",
    "vgg_small",
    "vgg_tiny",
    "resnet8",
    "resnet20",
    "resnet32",
    "resnet18",
    "resnet50",
    "resnet101",
)


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """The network.

    These keys choose the network, the kind of its layers, and the gradients of adder layers (X is the input
    and F the filter of a layer; p is the power of its distance, 1 unless schedule.p_start is set).
    """

    name: Annotated[str, "The network to train.", OneOf(NETWORKS)]
    args: Annotated[
        Mapping[str, Any],
        "Keyword arguments for a network of your own. --model.args.NAME VALUE sets one of them.",
    ] = field(default_factory=dict, hash=False)
    kind: Annotated[
        Literal["adder", "conv", "binary"],
        "The kind of layer: adder layers, convolutions (the convolutional baseline of the same network), or "
        "the binary layers of XNOR-Net.",
    ] = "adder"
    head: Annotated[
        Literal["norm", "linear"],
        "The classifier: norm is a convolution followed by a batch norm on the logits, as in the AdderNet "
        "authors' code; linear is a linear layer with bias, as in torchvision.",
    ] = "norm"
    filter_gradient: Annotated[
        Literal["full", "sign"],
        "The gradient that an adder layer's filters get where p is 1: full is X − F, sign is sign(X − F).",
    ] = "full"
    input_gradient: Annotated[
        Literal["ht", "sign", "ht_scaled"],
        "The gradient that an adder layer's input gets where p is 1: ht is F − X clipped to [−1, 1], sign is "
        "sign(F − X), ht_scaled is c (F − X) clipped to [−1, 1], where c is model.input_slope.",
    ] = "ht"
    input_slope: Annotated[
        float, "The factor c of model.input_gradient: ht_scaled. Leave it at 1 for the other gradients."
    ] = 1.0


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Images, batches and augmentation.

    These keys choose the data set, how images are read and resized, and how training images are augmented.
    """

    name: Annotated[
        str,
        "The data set. folder reads any images that lie as train/CLASS/FILE and val/CLASS/FILE in data.root.",
        OneOf(tuple(DATA_SETS)),
    ]
    args: Annotated[
        Mapping[str, Any],
        "Keyword arguments for a data set of your own. --data.args.NAME VALUE sets one of them.",
    ] = field(default_factory=dict, hash=False)
    root: Annotated[
        str | None,
        "The folder that holds the data sets. null uses the environment variable ADDERTRAIN_DATA or, if that "
        "is not set, ./data.",
    ] = None
    loader: Annotated[
        Literal["memory", "ffcv", "torchvision"],
        "How images are read: memory keeps the whole data set in memory, ffcv decodes images from .beton "
        "files, torchvision decodes the original files.",
    ] = "memory"
    global_batch_size: Annotated[
        int, "The number of images in one optimizer step, counted over all ranks and micro-batches."
    ]
    augmentation: Annotated[
        Literal["none", "crop_flip", "resized_crop_flip"],
        "The augmentation of training images: crop_flip takes a random crop of the zero-padded image and "
        "flips it at random; resized_crop_flip takes a random resized crop and flips it at random, as is "
        "usual for ImageNet; none leaves images as they are.",
    ] = "none"
    crop_until: Annotated[
        int | None,
        "The first epoch in which crop_flip no longer crops and only flips, so that the last epochs and the "
        "statistics of norms see whole images, as evaluations do. null crops in every epoch.",
    ] = None
    image_size: Annotated[
        int, "The height and width, in pixels, to which the ffcv and torchvision loaders resize images."
    ] = 224
    first_image_size: Annotated[
        int | None,
        "The height and width, in pixels, of training images up to epoch data.grow_from; after it they grow "
        "in multiples of 32 pixels. null trains at data.image_size throughout.",
    ] = None
    grow_from: Annotated[
        int, "The last epoch that trains at data.first_image_size (progressive resizing)."
    ] = 0
    grow_until: Annotated[int, "The first epoch that trains at data.image_size (progressive resizing)."] = 0
    eval_image_size: Annotated[
        int | None, "The height and width, in pixels, of images in evaluations. null uses data.image_size."
    ] = None
    min_crop_area: Annotated[
        float,
        "The smallest crop that resized_crop_flip takes, as a fraction of the image's area. The largest is "
        "the whole image.",
    ] = 0.08
    center_crop: Annotated[
        float,
        "The side of the central square that evaluations crop, as a fraction of the image's shorter side.",
    ] = 0.875
    mixup: Annotated[
        float,
        "The α of mixup, which blends pairs of images and labels with a weight drawn from Beta(α, α). 0 "
        "turns mixup off; the maximum is 1.",
    ] = 0.0
    cutmix: Annotated[
        float,
        "The α of CutMix, which pastes a box of one image into another; its area is drawn from Beta(α, α). 0 "
        "turns CutMix off; the maximum is 1. If mixup is on too, each gets half of the images.",
    ] = 0.0
    randaugment: Annotated[
        int,
        "The magnitude, up to 10, of RandAugment with one random operation per image. 0 turns it off.",
    ] = 0
    threads: Annotated[
        int | None,
        "The number of threads per rank that decode images. null divides the machine's cores among its "
        "ranks.",
    ] = None
    timeout_seconds: Annotated[
        float,
        "How many seconds the ffcv and torchvision loaders may take for one batch before the run stops.",
    ] = 300.0


@dataclass(frozen=True, kw_only=True)
class OptimRecipe:
    """The optimizer.

    The optimizer gives adder layers an adaptive learning rate (ALR): it rescales the gradient of each layer
    (the update, for all others than SGD) to a root mean square (RMS) of η. γ is the learning rate.
    """

    name: Annotated[
        Literal["sgd", "adamw", "lion", "muon"],
        "The optimizer: SGD, where ALR rescales the gradients of adder layers, or AdamW, Lion or Muon, where "
        "ALR rescales their updates. muon is for adder layers alone, and all other layers get SGD; it needs "
        "unsharded filters, as under DDP.",
    ] = "sgd"
    lr: Annotated[
        float, "The learning rate γ at the base batch size, before the schedule and batch-size scaling."
    ]
    momentum: Annotated[float, "The momentum of optim.name: sgd and muon."] = 0.9
    nesterov: Annotated[bool, "Use Nesterov momentum with optim.name: sgd and muon."] = True
    beta1: Annotated[
        float, "The decay β1 of optim.name: adamw and lion, for the mean of gradients that a step uses."
    ] = 0.9
    beta2: Annotated[
        float | None,
        "The decay β2 of optim.name: adamw, for the mean of squared gradients, and of lion, for its "
        "momentum. null means 0.999 for adamw and 0.99 for lion.",
    ] = None
    weight_decay: Annotated[
        float,
        "The weight decay, which ALR does not rescale. SGD adds it to the gradient; the others "
        "apply it to the weights directly.",
    ]
    decay_norm_and_bias: Annotated[
        bool, "Apply weight decay to batch-norm parameters and biases as well as to filters."
    ] = True
    eta: Annotated[
        float,
        "The η of ALR: the RMS of every adder layer's rescaled gradient, or update for others than SGD.",
    ] = 0.2
    alr: Annotated[
        Literal["global", "local", "off", "increased"],
        "When ALR is applied: global applies it after the gradients have been reduced over the ranks; local "
        "applies it on each rank before the reduction (for comparison); off disables it; increased "
        "multiplies the gradients of adder layers by optim.increase instead.",
    ] = "global"
    increase: Annotated[
        float, "The factor by which optim.alr: increased multiplies the gradients of adder layers."
    ] = 100.0
    label_smoothing: Annotated[
        float, "The fraction of each training label that is spread evenly over all classes. 0 turns it off."
    ] = 0.0
    base_batch_size: Annotated[
        int | None,
        "The global batch size for which optim.lr and optim.weight_decay are meant. If "
        "data.global_batch_size differs, optim.lr_scaling, optim.adder_lr_scaling and "
        "optim.adder_decay_scaling say how they scale. null means data.global_batch_size, so nothing is "
        "scaled.",
    ] = None
    lr_scaling: Annotated[
        Literal["none", "sqrt", "linear"],
        "How the learning rate of all other layers than adder layers scales with data.global_batch_size / "
        "optim.base_batch_size.",
    ] = "linear"
    adder_lr_scaling: Annotated[
        Literal["none", "sqrt", "linear"],
        "How the learning rate of adder layers scales with data.global_batch_size / optim.base_batch_size. "
        "The default is sqrt because ALR gives every gradient the same length.",
    ] = "sqrt"
    adder_decay_scaling: Annotated[
        Literal["none", "sqrt", "linear"],
        "How the weight decay of adder layers scales with data.global_batch_size / optim.base_batch_size. "
        "The same choice as in optim.adder_lr_scaling keeps the RMS of the filters unchanged.",
    ] = "none"
    clip_norm: Annotated[
        float | None,
        "The maximum norm of all gradients together, except those of adder layers, whose length ALR sets. "
        "null turns clipping off.",
    ] = None


@dataclass(frozen=True, kw_only=True)
class ScheduleRecipe:
    """Epochs and learning-rate schedule.

    These keys set how long to train and how the learning rate decays; the rate changes at every step.
    """

    name: Annotated[
        Literal["cosine", "polynomial", "step"],
        "The decay of the learning rate: cosine follows half a cosine to 0; polynomial follows (1 − "
        "progress)^schedule.power to 0; step multiplies the rate by schedule.step_factor every "
        "schedule.step_epochs epochs.",
    ] = "cosine"
    epochs: Annotated[int, "The number of passes over the training images."]
    warmup_epochs: Annotated[
        float, "The number of epochs at the start in which the learning rate rises linearly. 0 turns it off."
    ] = 0.0
    power: Annotated[float, "The exponent of schedule.name: polynomial."] = 1.0
    step_epochs: Annotated[int, "The number of epochs between two drops of schedule.name: step."] = 30
    step_factor: Annotated[
        float, "The factor by which each drop of schedule.name: step multiplies the learning rate."
    ] = 0.1
    p_start: Annotated[
        float,
        "The power p, from 1 to 2, of the distance Σ|x − w|^p with which adder layers start. During "
        "schedule.p_epochs it falls linearly to 1, which it has in their last step. The default trains at 1 "
        "throughout.",
    ] = 1.0
    p_epochs: Annotated[
        int, "The number of epochs in which the power falls from schedule.p_start to 1; 0 if p_start is 1."
    ] = 0


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """Ranks, precision, evaluation, checkpoints and faults.

    These keys say how the run is carried out: on which ranks and in which precision it computes, how it is
    evaluated, when checkpoints are written, and what happens when something goes wrong.
    """

    strategy: Annotated[
        Literal["auto", "ddp", "zero1", "zero2", "zero3", "fsdp"],
        "How the ranks share the training state: ddp keeps it unsharded on every rank; zero1, zero2 and "
        "zero3 shard it with DeepSpeed's ZeRO; fsdp shards it with PyTorch's FSDP2; auto uses ddp under a "
        "launcher and a single process otherwise.",
    ] = "auto"
    precision: Annotated[
        Literal["fp32", "bf16-mixed", "fp16-mixed"],
        "The floating-point precision of the forward and backward passes. Parameters stay in float32.",
    ] = "fp32"
    accumulate: Annotated[
        int,
        "The number of micro-batches into which each global batch is split to save memory. Their gradients "
        "are summed before the optimizer step.",
    ] = 1
    channels_last: Annotated[
        bool, "Store images in the channels-last memory format. false stores them channels-first."
    ] = True
    compile: Annotated[
        Literal["off", "inductor", "aot_eager"],
        "Compile the network by torch.compile with this backend; off does not compile it. aot_eager only "
        "helps to debug compilation; it is no faster.",
    ] = "off"
    kernels: Annotated[
        Literal["compiled", "reference"],
        "The operators to use: compiled checks the compiled kernels against the reference before training "
        "and stops if one is wrong; reference uses slow operators written in PyTorch.",
    ] = "compiled"
    seed: Annotated[
        int, "The seed of every random draw: initial weights, order of the images, and augmentation."
    ] = 0
    sync_batchnorm: Annotated[
        bool,
        "Compute batch-norm statistics over the images of all ranks, so that the number of ranks does not "
        "change the result. false computes them on each rank, as the paper does.",
    ] = False
    recalibrate_batches: Annotated[
        int,
        "The number of training batches on which batch-norm statistics are recomputed before each "
        "evaluation. 0 evaluates with the running statistics of training.",
    ] = 10
    evaluate_uncalibrated: Annotated[
        bool,
        "Also report the accuracy with the running statistics of training in every evaluation during "
        "training. false saves this second pass over the test images.",
    ] = True
    flip_evaluation: Annotated[
        bool, "Evaluate with the mean of the logits of each image and of its mirror image."
    ] = False
    ema_decay: Annotated[
        float,
        "The decay per step of the exponential moving average of the weights, which evaluations then use. 0 "
        "turns the average off, and evaluations use the current weights.",
    ] = 0.0
    keep_checkpoints: Annotated[
        int, "The number of most recent checkpoints to keep. The best one is always kept as well."
    ] = 3
    save_every_steps: Annotated[
        int | None,
        "The number of optimizer steps between checkpoints within an epoch. null saves only at the end of "
        "each epoch.",
    ] = None
    save_every_minutes: Annotated[
        float | None,
        "The number of minutes between checkpoints within an epoch, counted from the last checkpoint. null "
        "does not save by time.",
    ] = None
    on_save_failure: Annotated[
        Literal["warn", "stop"],
        "What to do if a checkpoint cannot be written: warn and continue, or stop. Failing to write the "
        "final checkpoint, or one that a signal asked for, always stops the run.",
    ] = "warn"
    on_nonfinite: Annotated[
        Literal["stop", "skip", "rollback"],
        "What to do if the loss or a gradient is NaN or infinite: stop the run, skip the step, or roll back "
        "to the last checkpoint and continue with the rest of the epoch in another order.",
    ] = "stop"
    nonfinite_limit: Annotated[
        int,
        "The number of steps that may be skipped, or of rollbacks, under train.on_nonfinite. The next one "
        "stops the run.",
    ] = 10
    timeout_seconds: Annotated[
        float, "How many seconds ranks wait for a rank that does not answer before the run stops."
    ] = 600.0


@dataclass(frozen=True, kw_only=True)
class DistillRecipe:
    """Knowledge distillation.

    The network can learn from a convolutional teacher as well as from labels, after PKKD (arXiv 2009.13044).
    """

    teacher: Annotated[
        Literal["none", "twin", "frozen"],
        "The teacher: none; twin, the convolutional baseline of the network, which is trained at the same "
        "time; or frozen, the network of a finished run, which stays as it is.",
    ] = "none"
    checkpoint: Annotated[
        str | None,
        "The run directory or checkpoint of the teacher if distill.teacher is frozen; otherwise it has to "
        "be null.",
    ] = None
    weight: Annotated[
        float,
        "The weight, from 0 to 1, of the loss against the teacher's logits; the loss against the labels gets "
        "the rest.",
    ] = 0.5
    temperature: Annotated[
        float, "The temperature by which the logits of both networks are divided before they are compared."
    ] = 4.0
    views: Annotated[
        int,
        "The number of augmented views of every training image at which a frozen teacher looks once, before "
        "the first step. The mean of its logits is then what the network learns from, and a step costs no "
        "more than without a teacher. It needs data.loader memory, without mixup and cutmix. 0: the teacher "
        "looks at every batch.",
    ] = 0
    feature_weight: Annotated[
        float, "The weight of the loss that matches intermediate features. 0 compares logits only."
    ] = 1.0
    kernel_width: Annotated[
        float, "The σ of the kernel exp(−z / (2 σ²)) that is applied to features before they are compared."
    ] = 1.0


@dataclass(frozen=True, kw_only=True)
class ExpectedRecipe:
    """The expected result.

    These keys do not change training. They say which accuracy the recipe should reach, by which source, and
    addertrain reproduce checks results against them.
    """

    top1: Annotated[
        float | None, "The expected top-1 accuracy in percent. null means that it was not measured."
    ] = None
    tolerance: Annotated[
        float, "How many percentage points a result may differ from expected.top1 and still be reproduced."
    ] = 0.0
    seeds: Annotated[int, "The number of seeds over which expected.top1 is the mean."] = 1
    source: Annotated[str, "The publication or measurement that expected.top1 is taken from."] = ""
    data_sha256: Annotated[
        str | None,
        "The fingerprint of the data set on which expected.top1 was measured; addertrain reproduce prints "
        "it. null accepts any data.",
    ] = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Keys of a recipe.

    Every key of the recipe file is also an option, such as --optim.lr 0.05, and overrides the file.
    addertrain fit --help SECTION shows one section only.
    """

    name: Annotated[str, "The name of the recipe, which is also the name of its folder under runs/."]
    model: ModelRecipe
    data: DataRecipe
    optim: OptimRecipe
    schedule: ScheduleRecipe
    train: TrainRecipe
    distill: DistillRecipe = DistillRecipe()
    expected: ExpectedRecipe

    def steps_per_epoch(self, num_images: int) -> int:
        """The number of optimizer steps in an epoch of `num_images` training images: its full global batches.

        It does not depend on ranks or micro-batches. It is 0 if there are fewer images than one batch has.
        """
        return num_images // self.data.global_batch_size
