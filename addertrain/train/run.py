"""A complete run from a recipe: train, save, resume, evaluate, summarise."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from torch import Tensor

from addertrain.checkpoint.files import read_manifest, verify_checkpoint
from addertrain.checkpoint.held import held_checkpoint
from addertrain.data import ImageData, load_data
from addertrain.errors import CheckpointError, UsageError
from addertrain.recipe import DataRecipe, DistillRecipe, Recipe, TrainRecipe
from addertrain.train.account import FinishedTraining, headline, manifest_entries, say_on_first, sum_up
from addertrain.train.callbacks.averaging import WeightAverage
from addertrain.train.callbacks.clipping import ClipNorm
from addertrain.train.callbacks.clock import DataWait, RunClock
from addertrain.train.callbacks.evaluation import RecalibratedEvaluation
from addertrain.train.callbacks.falling_power import FallingPower
from addertrain.train.callbacks.guard import FiniteGuard
from addertrain.train.callbacks.leave_evaluation import LeaveEvaluation
from addertrain.train.callbacks.meter import TrainMeter
from addertrain.train.callbacks.progress import Progress
from addertrain.train.callbacks.recorders import records
from addertrain.train.callbacks.saving import SaveCheckpoints
from addertrain.train.callbacks.teacher_views import TeacherViews
from addertrain.train.claim import claimed
from addertrain.train.classification_counts import Score
from addertrain.train.data_record import check_evaluation, check_ranks_agree, check_resumption, data_record
from addertrain.train.initial_weights import InitialWeights, initial_weights
from addertrain.train.kernels import trusted_kernels
from addertrain.train.lightning_internals import leave_signals_alone
from addertrain.train.lightning_settings import (
    every_argument,
    interrupts_as_such,
    silence_lightning,
    without_slurm,
)
from addertrain.train.loaders import int8_batches, rank_loader, recalibration_batches
from addertrain.train.network import build_classifier, check_network
from addertrain.train.out_of_memory import memory_advice
from addertrain.train.output import warn
from addertrain.train.own_parts import OwnParts, check_state_keys, compare_functions
from addertrain.train.processes import World, joined_processes, on_first_rank
from addertrain.train.recipe_record import recipe_from_record
from addertrain.train.resume import choose_start, with_rollbacks
from addertrain.train.run_directory import RunDirectory, Summary
from addertrain.train.session import lineage, session_record
from addertrain.train.signals import SignalWatch, end_with_launcher
from addertrain.train.step import in_order
from addertrain.train.strategies.checkpoint_io import DirectoryCheckpointIO
from addertrain.train.strategies.choice import trainer_settings
from addertrain.train.trained import averaged_weights, last_epoch


def fit(
    recipe: Recipe,
    out: str | Path,
    resume: str = "auto",
    *,
    signals: SignalWatch | None = None,
    profile: bool = False,
    init_from: str | Path | None = None,
    callbacks: Iterable[Callback] = (),
    loggers: Iterable[Logger] = (),
) -> Summary:
    """Trains `recipe` in the run directory `out`, or resumes it; every rank of a launcher has to call it.

    Args:
        resume: "auto", "none", or the path of a checkpoint or a run; see `resume.choose_start`.
        signals: the signals received so far, including those during start-up.
        profile: whether to profile some steps; see `profiling`.
        init_from: a run, checkpoint or safetensors file whose network a new run starts from.
        callbacks: your own, on every rank. They act after everything that `fit` does in a step, and before
            its save, so that checkpoints hold their `state_dict` (plain values) under their `state_key`; they
            also see the evaluation at the end. docs/extending.md has examples.
        loggers: your own, which receive the curves of TensorBoard and the recipe, on the first rank.

    Raises:
        SavedAfterSignal: SIGTERM or SIGUSR1 came; all ranks have saved, and the same call resumes.
        RunError, RecipeError, DataError: one line that says what is wrong.
    """
    silence_lightning()
    own = OwnParts.checked(recipe, callbacks, loggers)
    run = RunDirectory(Path(out))
    watch = signals or SignalWatch()
    timeout_s = recipe.train.timeout_seconds
    with without_slurm(), watch, joined_processes(timeout_s=timeout_s) as world, _claimed(run):
        if world.is_launched:
            end_with_launcher()
        start = on_first_rank(lambda: choose_start(recipe, run, resume, warn))
        if start.summary is not None:
            say_on_first(world, f"{run.path}: this run has finished already, so there is nothing to do")
            return start.summary
        initial = initial_weights(init_from, start.checkpoint)
        data = _load(recipe.data)
        record = data_record(data)
        check_ranks_agree(record)
        on_first_rank(lambda: check_resumption(start.checkpoint, record, warn))
        on_first_rank(lambda: own.compare(start.checkpoint, warn))
        check_network(recipe, data)
        with trusted_kernels(recipe, data, world, run.path):
            trained = with_rollbacks(
                lambda checkpoint, rollbacks: _train(
                    recipe, data, run, world, checkpoint, watch, rollbacks, own,
                    profile=profile, initial=initial,
                ),
                start.checkpoint, run.store, warn,
            )  # fmt: skip
            on_first_rank(lambda: verify_checkpoint(trained.checkpoint))
            leave = LeaveEvaluation(watch, trained.checkpoint, timeout_s=timeout_s)
            score, _ = _evaluate(recipe, data, trained.checkpoint, world, *own.callbacks, leave)
        return on_first_rank(lambda: sum_up(recipe, run, world, trained, score))


@contextlib.contextmanager
def _claimed(run: RunDirectory) -> Iterator[None]:
    """The first rank's claim on the run directory; its error is raised on every rank."""
    with contextlib.ExitStack() as claim:
        on_first_rank(lambda: claim.enter_context(claimed(run.path, warn)))
        yield


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`: top1 and top5 in percent, over every test image once.

    They are the numbers in recipes and summaries: with recalibrated statistics (unless
    train.recalibrate_batches is 0), and averaged weights if train.ema_decay is set. `top1_uncalibrated` is
    without recalibration, None if that is the same or not requested.
    """

    top1: float
    top5: float
    loss: float
    num_images: int
    recipe: str
    checkpoint: str
    top1_uncalibrated: float | None = None
    top1_float32: float | None = None


def evaluate(
    path: str | Path, recipe: Recipe | None = None, *, precision: Literal["float32", "int8"] = "float32"
) -> Evaluation:
    """Evaluates a checkpoint, or the newest intact one of a run directory, as its recipe says.

    With int8, adder layers compute in 8 bits (`nn.int8`), and `top1_float32` is the accuracy without.

    Args:
        recipe: the recipe to use instead of the one in the checkpoint.

    Raises:
        CheckpointError: there is no usable checkpoint.
    """
    silence_lightning()
    with without_slurm(), joined_processes() as world, contextlib.ExitStack() as stack:
        held = on_first_rank(lambda: stack.enter_context(held_checkpoint(Path(path), warn)))
        checkpoint = held.files
        if recipe is None:
            recipe = recipe_from_record(read_manifest(checkpoint).get("recipe"), source=str(held.checkpoint))
        data = _load(recipe.data)
        named = held.checkpoint
        on_first_rank(lambda: check_evaluation(checkpoint, data_record(data), warn, named=named))
        on_first_rank(lambda: compare_functions(recipe, checkpoint, warn, named=named))
        folder = named.parent.parent
        stack.enter_context(trusted_kernels(recipe, data, world, folder, with_int8=precision == "int8"))
        score, uncalibrated = _evaluate(recipe, data, checkpoint, world)
        found = Evaluation(
            score.top1, score.top5, score.loss, score.num_images, recipe.name, str(held.checkpoint),
            uncalibrated.top1 if uncalibrated is not None else None,
        )  # fmt: skip
        if precision == "float32":
            return found
        in_bytes, _ = _evaluate(recipe, data, checkpoint, world, in_int8=True)
        return replace(
            found, top1=in_bytes.top1, top5=in_bytes.top5, loss=in_bytes.loss, top1_uncalibrated=None,
            top1_float32=score.top1,
        )  # fmt: skip


def _train(
    recipe: Recipe,
    data: ImageData,
    run: RunDirectory,
    world: World,
    checkpoint: Path | None,
    signals: SignalWatch,
    rollbacks: int,
    own: OwnParts,
    *,
    profile: bool,
    initial: InitialWeights | None,
) -> FinishedTraining:
    """Trains to the end of the schedule."""
    if checkpoint is None and rollbacks:
        own.start_over()  # else the checkpoint holds their states
    train_loader = rank_loader(recipe, data, world, training=True)
    train_loader.reorder(rollbacks)
    val_loader = rank_loader(recipe, data, world, training=False)
    num_micro_batches = recipe.train.accumulate
    steps_per_epoch = _steps_per_epoch(recipe, data)
    # Nothing is written before data and loaders are there.
    session = session_record(recipe, world, checkpoint, own.records())
    on_first_rank(lambda: run.open(recipe, session))
    sessions = lineage(checkpoint, session)
    clock, data_wait = RunClock(), DataWait()
    saves = _saves(recipe.train, run, world, signals)
    saves.newest = checkpoint
    guard = FiniteGuard.of(recipe.train, saves, rollbacks=rollbacks, warn=warn)
    meter = TrainMeter(clock, data_wait)
    averages = [WeightAverage(recipe.train.ema_decay)] if recipe.train.ema_decay else []
    evaluation = _evaluation(recipe, data, world, weights=averages[0].whole if averages else None)
    writers = _records(run, world, meter, evaluation, guard, profile=profile)
    callbacks = [
        *_teacher_views(recipe.distill, world), clock, meter, *averages, evaluation, guard,
        *_step_callbacks(recipe, steps_per_epoch), *writers, *own.callbacks, saves, Progress(meter, clock),
    ]  # fmt: skip
    check_state_keys(callbacks)
    trainer = _trainer(
        recipe.train,
        world,
        DirectoryCheckpointIO(manifest_entries(recipe, data, world, initial, sessions)),
        callbacks=in_order(callbacks),
        **own.logging(recipe, world, every_steps=min(meter.every_steps, steps_per_epoch)),
        profiler=data_wait,
        max_epochs=recipe.schedule.epochs,
        accumulate_grad_batches=num_micro_batches,
        limit_train_batches=steps_per_epoch * num_micro_batches,  # no step of less than a global batch
    )
    leave_signals_alone(trainer)
    say_on_first(world, headline(recipe, data, run, world, checkpoint))
    module = build_classifier(recipe, data, steps_per_epoch=steps_per_epoch, world_size=world.size)
    if initial is not None and checkpoint is None:
        say_on_first(world, initial.load(module.model, num_classes=data.num_classes))
    try:
        with memory_advice(run.path, recipe, world), interrupts_as_such(trainer):
            trainer.fit(module, train_loader, val_loader, ckpt_path=str(checkpoint) if checkpoint else None)
    finally:
        train_loader.close()
        val_loader.close()
    assert saves.newest is not None, "a training ends with a save, or has nothing left to train"
    return FinishedTraining(saves.newest, clock, sessions)


def _records(
    run: RunDirectory,
    world: World,
    meter: TrainMeter,
    evaluation: RecalibratedEvaluation,
    guard: FiniteGuard,
    *,
    profile: bool,
) -> list[Callback]:
    """The callbacks that write curves and profiles."""
    say = partial(say_on_first, world)
    return records(run.path, world, meter, evaluation, guard, profile=profile, say=say, warn=warn)


def _steps_per_epoch(recipe: Recipe, data: ImageData) -> int:
    num_steps = recipe.steps_per_epoch(len(data.train))
    if num_steps == 0:
        raise UsageError(
            f"{recipe.name}: expected at least one global batch of {recipe.data.global_batch_size} training "
            f"images, got {len(data.train)} images; lower data.global_batch_size"
        )
    return num_steps


def _saves(train: TrainRecipe, run: RunDirectory, world: World, signals: SignalWatch) -> SaveCheckpoints:
    """The callback that writes the recipe's checkpoints."""

    def go_on(error: CheckpointError) -> None:
        if world.is_first:
            newest = saves.newest.name if saves.newest else "none"
            warn(
                f"{error} (the newest is {newest}); training continues, but has to write a checkpoint at "
                "its end"
            )

    saves = SaveCheckpoints(
        run.store,
        keep=train.keep_checkpoints,
        every_steps=train.save_every_steps,
        every_minutes=train.save_every_minutes,
        signals=signals,
        on_failure=go_on if train.on_save_failure == "warn" else None,
        timeout_s=train.timeout_seconds,
    )
    return saves


def _evaluate(
    recipe: Recipe, data: ImageData, checkpoint: Path, world: World, *beside: Callback, in_int8: bool = False
) -> tuple[Score, Score | None]:
    """A checkpoint's score, and the uncalibrated one; the network is `evaluated` as during training."""
    weights = averaged_weights(checkpoint, recipe.train)
    manifest = read_manifest(checkpoint)
    evaluation = _evaluation(
        recipe, data, world, weights=None if weights is None else lambda: weights,
        epoch=last_epoch(manifest), in_int8=in_int8,
    )  # fmt: skip
    trainer = _trainer(recipe.train, world, DirectoryCheckpointIO(), callbacks=[evaluation, *beside])
    leave_signals_alone(trainer)
    module = build_classifier(recipe, data, step=manifest["global_step"], to_train=False)
    loader = rank_loader(recipe, data, world, training=False)
    trainer.validate(module, loader, ckpt_path=str(checkpoint), verbose=False)
    assert module.val_score is not None
    return module.val_score, evaluation.uncalibrated_score


def _trainer(
    train: TrainRecipe, world: World, checkpoint_io: DirectoryCheckpointIO, **settings: Any
) -> Trainer:
    """Lightning's Trainer without the features that this package has itself."""
    return Trainer(
        **every_argument(
            **trainer_settings(train, world, checkpoint_io),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            inference_mode=False,  # the statistics of an evaluation live in ordinary buffers
            use_distributed_sampler=False,
            **{"logger": False, **settings},
        )
    )


def _load(settings: DataRecipe) -> ImageData:
    """Loads the data, first on the first rank, which may have to download them."""
    loaded: list[ImageData] = []
    on_first_rank(lambda: loaded.append(load_data(settings)))
    return loaded[0] if loaded else load_data(settings)


def _teacher_views(distill: DistillRecipe, world: World) -> list[Callback]:
    """The callback that lets a frozen teacher look at the images before the first step, if it has to."""
    return [TeacherViews(distill.views, partial(say_on_first, world))] if distill.views else []


def _step_callbacks(recipe: Recipe, steps_per_epoch: int) -> list[Callback]:
    """The callbacks that act on a step after the guard, in their order."""
    callbacks: list[Callback] = []
    if recipe.optim.clip_norm is not None:
        callbacks.append(ClipNorm(recipe.optim.clip_norm))
    if recipe.schedule.p_start > 1.0:
        callbacks.append(FallingPower(recipe, steps_per_epoch=steps_per_epoch))
    return callbacks


def _evaluation(
    recipe: Recipe,
    data: ImageData,
    world: World,
    *,
    weights: Callable[[], Mapping[str, Tensor]] | None,
    epoch: int = 0,
    in_int8: bool = False,
) -> RecalibratedEvaluation:
    """The callback for the recipe's evaluations, in a training or of a checkpoint whose last step was in
    `epoch`; `weights` returns averaged ones.
    """
    batches = recalibration_batches(recipe, data, rank=world.rank, world_size=world.size)
    return RecalibratedEvaluation(
        None if batches is None else batches.like(epoch),
        weights=weights,
        int8=int8_batches(recipe, data).like(epoch) if in_int8 else None,
        with_uncalibrated=recipe.train.evaluate_uncalibrated and batches is not None and not in_int8,
    )
