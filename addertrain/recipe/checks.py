"""Checks what a key's type cannot say: ranges, and keys that exclude each other."""

import math
import re
from collections.abc import Iterator, Mapping

from addertrain.errors import RecipeError
from addertrain.own_code import is_own
from addertrain.recipe.data_sets import DATA_SETS
from addertrain.recipe.settings import (
    DataRecipe,
    ExpectedRecipe,
    ModelRecipe,
    OptimRecipe,
    Recipe,
    ScheduleRecipe,
    TrainRecipe,
)

# A rule: the key, whether its value is fine, the value, what was expected of it.
_Rule = tuple[str, bool, object, str]

_MAX_SEED = 2**32 - 1  # what numpy's and Lightning's seeds allow
_MAX_THREADS = 1024
# Beyond 2^31 ms the sockets below torch's store give up at once, below a millisecond they never wait.
_MIN_TIMEOUT_SECONDS, _MAX_TIMEOUT_SECONDS = 0.001, 1_000_000
_TIMEOUT = f"a number of seconds above 0, up to {_MAX_TIMEOUT_SECONDS} (11 days)"
_UNSHARDED_STRATEGIES = ("auto", "ddp")  # the only ones under which filters and gradients are unsharded


def check_recipe(recipe: Recipe, *, source: str = "recipe") -> None:
    """Raises a RecipeError for the first rule that the recipe breaks; `source` names it in the message."""
    for key, is_fine, got, expected in _rules(recipe):
        if not is_fine:
            raise RecipeError(
                f"{source}: {key}: expected {expected}, got {got!r}; change it in the file or with --{key} "
                "VALUE"
            )


def _rules(recipe: Recipe) -> Iterator[_Rule]:
    is_name = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", recipe.name) is not None
    yield "name", is_name, recipe.name, "letters, digits, '.', '_' and '-', because it names a folder"
    yield from _model_rules(recipe.model)
    yield from _data_rules(recipe.data)
    yield from _optim_rules(recipe.optim)
    yield from _schedule_rules(recipe.schedule)
    yield from _train_rules(recipe.train)
    yield from _expected_rules(recipe.expected)
    for key, value, needed in (("alr", "local", "gradients"), ("name", "muon", "filters")):
        is_fine = getattr(recipe.optim, key) != value or recipe.train.strategy in _UNSHARDED_STRATEGIES
        strategies = " or ".join(_UNSHARDED_STRATEGIES)
        expected = f"{strategies} with optim.{key}: {value}, which needs unsharded {needed}"
        yield "train.strategy", is_fine, recipe.train.strategy, expected
    is_unscaled = recipe.optim.alr != "local" or recipe.train.precision != "fp16-mixed"
    expected = (
        "global, off or increased with train.precision: fp16-mixed, because local ALR would undo "
        "the loss scale"
    )
    yield "optim.alr", is_unscaled, recipe.optim.alr, expected
    yield from _variant_rules(recipe)
    yield from _distill_rules(recipe)
    num_micro_batches, batch = recipe.train.accumulate, recipe.data.global_batch_size
    is_cut = num_micro_batches >= 1 and batch % num_micro_batches == 0
    yield "train.accumulate", is_cut, num_micro_batches, f"a divisor of data.global_batch_size ({batch})"
    until, num_epochs = recipe.data.crop_until, recipe.schedule.epochs
    has_crops = until is None or (recipe.data.augmentation == "crop_flip" and 0 < until < num_epochs)
    expected = (
        f"null, or 1 and above, below schedule.epochs ({num_epochs}), with data.augmentation: crop_flip"
    )
    yield "data.crop_until", has_crops, until, expected


def _variant_rules(recipe: Recipe) -> Iterator[_Rule]:
    model, schedule, compiler = recipe.model, recipe.schedule, recipe.train.compile
    variant = (model.filter_gradient, model.input_gradient, model.input_slope, schedule.p_start)
    is_adder = model.kind == "adder" or variant == ("full", "ht", 1.0, 1.0)
    yield "model.kind", is_adder, model.kind, "adder with other gradients or powers than the paper's"
    slope = model.input_slope
    is_slope = 0 < slope < math.inf and (slope == 1 or model.input_gradient == "ht_scaled")
    expected = "a finite number above 0, and 1 unless model.input_gradient is ht_scaled"
    yield "model.input_slope", is_slope, slope, expected
    power, num_epochs = schedule.p_start, schedule.p_epochs
    yield "schedule.p_start", 1 <= power <= 2, power, "a number from 1 to 2"
    is_length = 1 <= num_epochs <= schedule.epochs if power > 1 else num_epochs == 0
    expected = f"1 to schedule.epochs ({schedule.epochs}) if schedule.p_start is above 1, otherwise 0"
    yield "schedule.p_epochs", is_length, num_epochs, expected
    is_compiled = compiler == "off" or (power == 1 and recipe.train.strategy in _UNSHARDED_STRATEGIES)
    expected = (
        "off with schedule.p_start above 1, which would compile again at every step, and with "
        "sharded strategies"
    )
    yield "train.compile", is_compiled, compiler, expected


def _distill_rules(recipe: Recipe) -> Iterator[_Rule]:
    distill, train = recipe.distill, recipe.train
    has_teacher = distill.teacher != "none"
    is_whole = not has_teacher or (train.strategy in _UNSHARDED_STRATEGIES and train.compile == "off")
    expected = (
        f"none unless train.strategy is {' or '.join(_UNSHARDED_STRATEGIES)} and train.compile is off, "
        "because hooks read the features of unsharded layers"
    )
    yield "distill.teacher", is_whole, distill.teacher, expected
    is_given = (distill.checkpoint is not None) == (distill.teacher == "frozen")
    expected = "a run or checkpoint if distill.teacher is frozen, otherwise null"
    yield "distill.checkpoint", is_given, distill.checkpoint, expected
    yield "distill.weight", 0 <= distill.weight <= 1, distill.weight, "a number from 0 to 1"
    for name in ("temperature", "kernel_width"):
        value = getattr(distill, name)
        yield f"distill.{name}", 0 < value < math.inf, value, "a finite number above 0"
    data = recipe.data
    has_views = distill.teacher == "frozen" and distill.feature_weight == 0 and data.loader == "memory"
    has_views = has_views and data.mixup == data.cutmix == 0  # the teacher has seen no mixtures
    expected = (
        "0, or a number above 0 if distill.teacher is frozen, distill.feature_weight, data.mixup and "
        "data.cutmix are 0, and data.loader is memory"
    )
    yield "distill.views", distill.views == 0 or (distill.views > 0 and has_views), distill.views, expected
    weight = distill.feature_weight
    yield "distill.feature_weight", 0 <= weight < math.inf, weight, "a finite number, 0 or above"


def _model_rules(model: ModelRecipe) -> Iterator[_Rule]:
    yield from _argument_rules("model", model.name, model.args)
    has_head = model.head == "norm" or not (is_own(model.name) or model.name.startswith("lenet"))
    yield (
        "model.head",
        has_head,
        model.head,
        f"norm for {model.name}, whose last layer is an adder layer like the others",
    )


def _argument_rules(section: str, name: str, arguments: Mapping[str, object]) -> Iterator[_Rule]:
    is_fine = is_own(name) or not arguments
    yield (
        f"{section}.args",
        is_fine,
        dict(arguments),
        f"no arguments for {name}, which is not a function of your own",
    )


def _data_rules(data: DataRecipe) -> Iterator[_Rule]:
    yield "data.root", data.root != "", data.root, "a folder, or null"
    yield from _argument_rules("data", data.name, data.args)
    yield "data.global_batch_size", data.global_batch_size >= 1, data.global_batch_size, "at least 1"
    yield from _picture_rules(data)


def _picture_rules(data: DataRecipe) -> Iterator[_Rule]:
    if (known := DATA_SETS.get(data.name)) is not None:  # one of a user's own is asked when it is opened
        expected = f"{' or '.join(known.loaders)} for data.name: {data.name}"
        yield "data.loader", data.loader in known.loaders, data.loader, expected
        expected = f"{' or '.join(known.augmentations)} for {data.name}"
        yield "data.augmentation", data.augmentation in known.augmentations, data.augmentation, expected
    for name in ("image_size", "first_image_size", "eval_image_size"):
        size = getattr(data, name)
        yield f"data.{name}", size is None or size >= 8, size, "at least 8 pixels"
    is_growing = data.first_image_size is None or 0 <= data.grow_from < data.grow_until
    expected = "an epoch after data.grow_from, because data.first_image_size is set"
    yield "data.grow_until", is_growing, data.grow_until, expected
    yield "data.min_crop_area", 0 < data.min_crop_area <= 1, data.min_crop_area, "a fraction above 0, up to 1"
    yield "data.center_crop", 0 < data.center_crop <= 1, data.center_crop, "a fraction above 0, up to 1"
    for name in ("mixup", "cutmix"):
        alpha = getattr(data, name)
        yield f"data.{name}", 0 <= alpha <= 1, alpha, "0 to 1"
    yield "data.randaugment", 0 <= data.randaugment <= 10, data.randaugment, "0 to 10"
    is_number = data.threads is None or 1 <= data.threads <= _MAX_THREADS
    yield "data.threads", is_number, data.threads, f"1 to {_MAX_THREADS}, or null"
    is_time = 0 < data.timeout_seconds <= _MAX_TIMEOUT_SECONDS
    yield "data.timeout_seconds", is_time, data.timeout_seconds, _TIMEOUT


def _optim_rules(optim: OptimRecipe) -> Iterator[_Rule]:
    for name in ("lr", "eta", "increase"):
        value = getattr(optim, name)
        yield f"optim.{name}", value > 0 and math.isfinite(value), value, "a finite number above 0"
    yield "optim.momentum", 0 <= optim.momentum < 1, optim.momentum, "a number from 0 to below 1"
    decay = optim.weight_decay
    yield "optim.weight_decay", decay >= 0 and math.isfinite(decay), decay, "a finite number, 0 or above"
    base = optim.base_batch_size
    yield "optim.base_batch_size", base is None or base >= 1, base, "at least 1, or null"
    has_momentum = optim.momentum > 0 or not optim.nesterov
    smoothing, clip_norm = optim.label_smoothing, optim.clip_norm
    yield "optim.label_smoothing", 0 <= smoothing < 1, smoothing, "a number from 0 to below 1"
    is_norm = clip_norm is None or 0 < clip_norm < math.inf
    yield "optim.clip_norm", is_norm, clip_norm, "a finite number above 0, or null"
    yield "optim.nesterov", has_momentum, optim.nesterov, "false if optim.momentum is 0"
    yield "optim.beta1", 0 <= optim.beta1 < 1, optim.beta1, "a number from 0 to below 1"
    is_beta = optim.beta2 is None or 0 <= optim.beta2 < 1
    yield "optim.beta2", is_beta, optim.beta2, "a number from 0 to below 1, or null"
    is_known = optim.name == "sgd" or optim.alr in ("global", "off")
    yield "optim.alr", is_known, optim.alr, f"global or off with optim.name: {optim.name}"


def _schedule_rules(schedule: ScheduleRecipe) -> Iterator[_Rule]:
    yield "schedule.epochs", schedule.epochs >= 1, schedule.epochs, "at least 1"
    warmup = schedule.warmup_epochs
    expected = f"0 or above, below schedule.epochs ({schedule.epochs})"
    yield "schedule.warmup_epochs", 0 <= warmup < schedule.epochs, warmup, expected
    power = schedule.power
    yield "schedule.power", power > 0 and math.isfinite(power), power, "a finite number above 0"
    yield "schedule.step_epochs", schedule.step_epochs >= 1, schedule.step_epochs, "at least 1"
    factor = schedule.step_factor
    yield "schedule.step_factor", 0 < factor < 1, factor, "a number between 0 and 1"


def _train_rules(train: TrainRecipe) -> Iterator[_Rule]:
    decay = train.ema_decay
    is_average = decay == 0 or (0 < decay < 1 and train.recalibrate_batches > 0)
    expected = (
        "a number from 0 to below 1, with train.recalibrate_batches above 0, which averaged weights need"
    )
    yield "train.ema_decay", is_average, decay, expected
    yield "train.seed", 0 <= train.seed <= _MAX_SEED, train.seed, f"0 to {_MAX_SEED}"
    yield "train.recalibrate_batches", train.recalibrate_batches >= 0, train.recalibrate_batches, "0 or above"
    yield "train.keep_checkpoints", train.keep_checkpoints >= 1, train.keep_checkpoints, "at least 1"
    steps, minutes, timeout = train.save_every_steps, train.save_every_minutes, train.timeout_seconds
    yield "train.save_every_steps", steps is None or steps >= 1, steps, "at least 1, or null"
    is_time = minutes is None or (minutes > 0 and math.isfinite(minutes))
    yield "train.save_every_minutes", is_time, minutes, "a finite number above 0, or null"
    limit = train.nonfinite_limit
    yield "train.nonfinite_limit", limit >= 0, limit, "0 or above"
    is_time = _MIN_TIMEOUT_SECONDS <= timeout <= _MAX_TIMEOUT_SECONDS
    expected = f"{_MIN_TIMEOUT_SECONDS:g} to {_MAX_TIMEOUT_SECONDS} seconds (11 days)"
    yield "train.timeout_seconds", is_time, timeout, expected


def _expected_rules(expected: ExpectedRecipe) -> Iterator[_Rule]:
    top1, tolerance = expected.top1, expected.tolerance
    yield "expected.top1", top1 is None or 0 < top1 <= 100, top1, "a percentage above 0, or null"
    yield "expected.tolerance", 0 <= tolerance <= 100, tolerance, "percentage points from 0 to 100"
    yield "expected.seeds", expected.seeds >= 1, expected.seeds, "at least 1"
