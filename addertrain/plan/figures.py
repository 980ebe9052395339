"""Computes the numbers of a plan, and refuses plans that cannot work."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from addertrain.data import Batch, ImageArrays, ImageData, load_data
from addertrain.data.sets.registry import Place, data_places, facts_before_reading, image_shape
from addertrain.models import OperationCount, count_operations
from addertrain.optim import build_schedule
from addertrain.plan.decoding import Decoding, decoding_of
from addertrain.plan.memory import Memory, estimate_memory
from addertrain.recipe import DataRecipe, DistillRecipe, Recipe
from addertrain.train.building import initial_network

GIB = 2**30
_TIMED_STEPS = 3
_MAX_TIMED_IMAGES = 32  # a step of ImageNet's networks takes a second for each ten of them on a CPU


class PlanError(ValueError):
    """A plan that cannot work; the message says why and what to change."""


@dataclass(frozen=True)
class Plan:
    """A recipe on `world_size` ranks; bytes are those of one rank, operations are for one image at full
    size.
    """

    recipe: Recipe
    world_size: int
    num_train: int
    num_test: int
    image_shape: tuple[int, int, int]
    rank_batch_size: int
    steps_per_epoch: int
    operations: OperationCount
    memory: Memory
    checkpoint_bytes: int
    free_bytes: int
    places: list[Place]
    images_per_second: float | None
    power_images_per_second: float | None  # while the power of the distance lies between 2 and 1
    decoding: Decoding | None
    rate: Callable[[int], float]

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.recipe.schedule.epochs * self.steps_per_epoch

    @property
    def num_power_steps(self) -> int:
        """Optimizer steps in which the power of the distance falls; these have kernels of their own."""
        return self.recipe.schedule.p_epochs * self.steps_per_epoch

    @property
    def seconds(self) -> float | None:
        """Seconds of training at the given or measured rate."""
        if self.images_per_second is None:
            return None
        per_power_step = 1 / (self.power_images_per_second or self.images_per_second)
        rest = (self.num_steps - self.num_power_steps) / self.images_per_second
        return (rest + self.num_power_steps * per_power_step) * self.recipe.data.global_batch_size

    @property
    def disk_bytes(self) -> int:
        """Bytes of the checkpoints that are kept and of one that is being written."""
        return (self.recipe.train.keep_checkpoints + 1) * self.checkpoint_bytes


def make_plan(
    recipe: Recipe,
    *,
    world_size: int,
    out: Path,
    images_per_second: float | None = None,
    measure: bool = False,
    memory_gib: float | None = None,
    decode_ms: float | None = None,
) -> Plan:
    """Computes a plan and checks whether it can work.

    Args:
        out: the run directory, whose disk has to have enough space.
        images_per_second: of one rank; `measure` finds it on this machine instead.
        memory_gib: of one rank's device, against which the estimate is checked.
        decode_ms: the time in ms that a core of your machine needs to read an image, as `bench loader` prints
            it.

    Raises:
        PlanError: the plan cannot work.
        DataError: the images of the data set have to be counted and are missing.
    """
    data, num_train, num_test = _data_of(recipe.data)
    shape = image_shape(recipe.data, data)
    rank_batch_size = _rank_batch_size(recipe, world_size, num_train)
    steps_per_epoch = recipe.steps_per_epoch(num_train)
    part_size = rank_batch_size // recipe.train.accumulate
    with torch.device("meta"):
        model = initial_network(
            recipe,
            num_classes=data.num_classes,
            in_channels=len(data.mean),
            steps_per_epoch=steps_per_epoch,
            to_train=False,
        )
    operations = count_operations(model, shape)
    memory = _memory(recipe, data, shape, part_size, world_size)
    between = None
    if measure:
        images_per_second = measure_rate(recipe, data, image_shape=shape, batch_size=part_size)
        if recipe.schedule.p_start > 1:
            between = measure_rate(
                recipe, data, image_shape=shape, batch_size=part_size, is_power_falling=True
            )
    num_steps = recipe.schedule.epochs * steps_per_epoch
    places = data_places(recipe.data)
    schedule = build_schedule(recipe.schedule, steps_per_epoch=steps_per_epoch)
    plan = Plan(
        recipe=recipe,
        world_size=world_size,
        num_train=num_train,
        num_test=num_test,
        image_shape=shape,
        rank_batch_size=rank_batch_size,
        steps_per_epoch=steps_per_epoch,
        operations=operations,
        memory=memory,
        checkpoint_bytes=8 * operations.num_parameters + world_size * memory.buffers,
        free_bytes=free_bytes(out),
        places=places,
        images_per_second=images_per_second * world_size if images_per_second is not None else None,
        power_images_per_second=between * world_size if between is not None else None,
        decoding=decoding_of(recipe.data, places, decode_ms),
        rate=lambda step: recipe.optim.lr * schedule(step, num_steps),
    )
    _check_room(plan, memory_gib)
    return plan


def _data_of(settings: DataRecipe) -> tuple[ImageData, int, int]:
    """A data set without images, and the numbers of its training and test images."""
    facts = facts_before_reading(settings)
    if facts is None:
        data = load_data(settings)
        return data, len(data.train), len(data.test)
    images = torch.empty(0, *image_shape(settings), dtype=torch.uint8)
    none = ImageArrays(images, torch.empty(0, dtype=torch.int64))
    data = ImageData(train=none, test=none, mean=facts.mean, std=facts.std, num_classes=facts.num_classes)
    return data, facts.num_train, facts.num_test


def _rank_batch_size(recipe: Recipe, world_size: int, num_train: int) -> int:
    batch, parts = recipe.data.global_batch_size, recipe.train.accumulate
    if world_size < 1:
        raise PlanError(
            f"plan: expected a world size of at least 1, got {world_size}; name the number of ranks"
        )
    if batch < world_size * parts:
        raise PlanError(
            f"plan: expected data.global_batch_size to be at least {world_size} ranks x {parts} "
            f"micro-batches (train.accumulate), got {batch}; change one of the three"
        )
    if batch > num_train:
        raise PlanError(
            f"plan: expected data.global_batch_size to be at most the {num_train} training images, got "
            f"{batch}; make it smaller"
        )
    return parts * -(-batch // (parts * world_size))  # of the rank with the most, where shares differ


def _memory(
    recipe: Recipe, data: ImageData, shape: tuple[int, int, int], batch_size: int, world_size: int
) -> Memory:
    if recipe.train.sync_batchnorm:
        batch_size = max(batch_size, 2)  # a norm over all ranks has enough; the estimate's has one rank
    try:
        return estimate_memory(recipe, data, image_shape=shape, batch_size=batch_size, world_size=world_size)
    except ValueError as error:  # a norm that has nothing to normalise by
        raise PlanError(
            f"plan: expected a network that trains on {batch_size} image(s) per rank, got: {error} Use "
            "fewer ranks, a larger data.global_batch_size, or train.sync_batchnorm"
        ) from None


def _check_room(plan: Plan, memory_gib: float | None) -> None:
    if plan.disk_bytes > plan.free_bytes:
        raise PlanError(
            f"plan: expected {plan.disk_bytes / GIB:.1f} GiB of disk for "
            f"{plan.recipe.train.keep_checkpoints} + 1 checkpoints, got {plan.free_bytes / GIB:.1f} GiB; "
            "free some space, or lower train.keep_checkpoints"
        )
    if memory_gib is not None and plan.memory.total > memory_gib * GIB:
        raise PlanError(
            f"plan: expected at most {memory_gib:g} GiB per rank, got an estimate of "
            f"{plan.memory.total / GIB:.1f} GiB ({plan.memory.activations / GIB:.1f} GiB of activations); "
            "raise train.accumulate, use more ranks, or set train.precision: bf16-mixed"
        )


def free_bytes(path: Path) -> int:
    """Free bytes on the disk that will hold `path`, of which some parent exists."""
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def measure_rate(
    recipe: Recipe,
    data: ImageData,
    *,
    image_shape: tuple[int, int, int],
    batch_size: int,
    is_power_falling: bool = False,
) -> float:
    """Images per second of one process; without the loader, other ranks and communication.

    Args:
        is_power_falling: in the middle of schedule.p_epochs, and not after them.
    """
    # Here: what trains needs Lightning, and a plan that measures nothing does not.
    from addertrain.train.network import build_classifier

    if recipe.distill.views:
        recipe = replace(recipe, distill=DistillRecipe())  # its teacher is computed before the first step
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch_size = batch_size if device.type == "cuda" else min(batch_size, _MAX_TIMED_IMAGES)
    fall = recipe.schedule.p_epochs * _TIMED_STEPS
    step = fall // 2 + 1 if is_power_falling else fall
    module = build_classifier(recipe, data, steps_per_epoch=_TIMED_STEPS, step=step).to(device)
    optimizer = module.configure_optimizers()["optimizer"]
    images = torch.randint(0, 256, (batch_size, *image_shape), dtype=torch.uint8, device=device)
    labels = torch.randint(0, data.num_classes, (batch_size,), device=device)
    batch = Batch(images.contiguous(memory_format=torch.channels_last), labels, labels)
    seconds = []
    for _ in range(_TIMED_STEPS + 1):
        started = time.perf_counter()
        _, loss = module.learn(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    return batch_size / min(seconds[1:])  # the first step also allocates
