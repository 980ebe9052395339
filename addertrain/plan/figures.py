"""The numbers of a plan, and why some plans are impossible."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from addertrain.data import ImageArrays, ImageData, load_data
from addertrain.plan.files import Place, data_places, free_bytes
from addertrain.plan.memory import Memory, estimate_memory
from addertrain.plan.rate import measure_rate
from addertrain.recipe import Recipe
from addertrain.report import OperationCount, count_operations
from addertrain.train.network import build_classifier

# Training images, test images, channels and classes of the sets that are the same everywhere.
_SETS = {
    "digits": (1437, 360, 1, 10),
    "mnist": (60_000, 10_000, 1, 10),
    "cifar10": (50_000, 10_000, 3, 10),
    "cifar100": (50_000, 10_000, 3, 100),
    "imagenet": (1_281_167, 50_000, 3, 1000),
    "imagenette": (9469, 3925, 3, 10),
}
_MEMORY_IMAGE_SIZE = 32  # of every data set that loader: memory holds
GIB = 2**30


class PlanError(ValueError):
    """A plan that cannot be carried out; the message says why and what to change."""


@dataclass(frozen=True)
class Plan:
    """A recipe on `world_size` ranks; bytes are a rank's, operations are for one image at full size."""

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
    rate: Callable[[int], float]

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.recipe.schedule.epochs * self.steps_per_epoch

    @property
    def seconds(self) -> float | None:
        """Training alone, at the rate that was given or measured."""
        if self.images_per_second is None:
            return None
        return self.num_steps * self.recipe.data.global_batch_size / self.images_per_second

    @property
    def disk_bytes(self) -> int:
        """The checkpoints that are kept, and one that is being written."""
        return (self.recipe.train.keep_checkpoints + 1) * self.checkpoint_bytes


def make_plan(
    recipe: Recipe,
    *,
    world_size: int,
    out: Path,
    images_per_second: float | None = None,
    measure: bool = False,
    memory_gib: float | None = None,
) -> Plan:
    """Works a plan out and holds it against what is possible.

    Args:
        out: the run directory, for the room on its disk.
        images_per_second: of one rank; `measure` finds it on this machine instead.
        memory_gib: of one rank's device, to hold the estimate against.

    Raises:
        PlanError: it is impossible.
        DataError: for data.name folder, whose images have to be counted, where there are none.
    """
    data, num_train, num_test, image_shape = _data_shape(recipe)
    rank_batch_size = _rank_batch_size(recipe, world_size, num_train)
    steps_per_epoch = num_train // recipe.data.global_batch_size
    part_size = rank_batch_size // recipe.train.accumulate
    with torch.device("meta"):
        module = build_classifier(recipe, data, steps_per_epoch=steps_per_epoch)
    operations = count_operations(module.model, image_shape)
    memory = _memory(recipe, data, image_shape, part_size, world_size)
    if measure:
        images_per_second = measure_rate(recipe, data, image_shape=image_shape, batch_size=part_size)
    num_steps = recipe.schedule.epochs * steps_per_epoch
    plan = Plan(
        recipe=recipe,
        world_size=world_size,
        num_train=num_train,
        num_test=num_test,
        image_shape=image_shape,
        rank_batch_size=rank_batch_size,
        steps_per_epoch=steps_per_epoch,
        operations=operations,
        memory=memory,
        checkpoint_bytes=8 * operations.num_parameters + world_size * memory.buffers,
        free_bytes=free_bytes(out),
        places=data_places(recipe.data),
        images_per_second=images_per_second * world_size if images_per_second is not None else None,
        rate=lambda step: recipe.optim.lr * module.schedule(step, num_steps),
    )
    _check_room(plan, memory_gib)
    return plan


def _data_shape(recipe: Recipe) -> tuple[ImageData, int, int, tuple[int, int, int]]:
    """A data set of no images, how many there would be, and their shape."""
    size = _MEMORY_IMAGE_SIZE if recipe.data.loader == "memory" else recipe.data.image_size
    if recipe.data.name == "folder":
        data = load_data(recipe.data)
        return data, len(data.train), len(data.test), (len(data.mean), size, size)
    num_train, num_test, channels, num_classes = _SETS[recipe.data.name]
    none = ImageArrays(
        torch.empty(0, channels, size, size, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
    )
    half = (0.5,) * channels
    data = ImageData(train=none, test=none, mean=half, std=half, num_classes=num_classes)
    return data, num_train, num_test, (channels, size, size)


def _rank_batch_size(recipe: Recipe, world_size: int, num_train: int) -> int:
    batch, parts = recipe.data.global_batch_size, recipe.train.accumulate
    if world_size < 1:
        raise PlanError(f"plan: expected a world size of at least 1, got {world_size}")
    if batch % (world_size * parts):
        raise PlanError(
            f"plan: expected data.global_batch_size to be a multiple of {world_size} ranks x {parts} parts "
            f"(train.accumulate), got {batch}; change one of the three"
        )
    if batch > num_train:
        raise PlanError(
            f"plan: expected data.global_batch_size to be at most the {num_train} training images, got "
            f"{batch}; make it smaller"
        )
    return batch // world_size


def _memory(
    recipe: Recipe, data: ImageData, shape: tuple[int, int, int], batch_size: int, world_size: int
) -> Memory:
    try:
        return estimate_memory(recipe, data, image_shape=shape, batch_size=batch_size, world_size=world_size)
    except ValueError as error:  # a norm that has nothing to normalise by
        raise PlanError(
            f"plan: expected a network that trains on {batch_size} image(s) a rank, got: {error} Take fewer "
            "ranks or a larger data.global_batch_size"
        ) from None


def _check_room(plan: Plan, memory_gib: float | None) -> None:
    if plan.disk_bytes > plan.free_bytes:
        raise PlanError(
            f"plan: expected {plan.disk_bytes / GIB:.1f} GiB of disk for "
            f"{plan.recipe.train.keep_checkpoints} + 1 checkpoints, got {plan.free_bytes / GIB:.1f} GiB; "
            "make room, or lower train.keep_checkpoints"
        )
    if memory_gib is not None and plan.memory.total > memory_gib * GIB:
        raise PlanError(
            f"plan: expected at most {memory_gib:g} GiB a rank, got an estimate of "
            f"{plan.memory.total / GIB:.1f} GiB ({plan.memory.activations / GIB:.1f} of activations); raise "
            "train.accumulate, take more ranks, or train.precision bf16-mixed"
        )
