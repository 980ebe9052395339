"""Advice when memory runs out: one line, and on a GPU a snapshot of the allocations."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from addertrain.checkpoint.store import FOLDER, CheckpointStore
from addertrain.errors import OutOfMemory
from addertrain.recipe import Recipe
from addertrain.train.processes import World

_CPU_ALLOCATOR = "DefaultCPUAllocator"  # in the RuntimeError of a tensor that the host has no room for


@contextmanager
def memory_advice(folder: Path, recipe: Recipe, world: World) -> Iterator[None]:
    """Turns an error of an allocator, of a GPU or the host, into one line that says what to change.

    On a GPU `folder`/out_of_memory_rank_R.pickle is written for torch's memory viewer; under `--profile`,
    which keeps the allocator's history, it also shows the code that allocated.

    Raises:
        OutOfMemory: instead of the allocator's error.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        snapshot = _write_snapshot(folder, world) if world.device_type == "cuda" else None
        raise OutOfMemory(_advice(error, recipe, world, snapshot, folder)) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error comes from an allocator without free memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _CPU_ALLOCATOR in str(error)


def _write_snapshot(folder: Path, world: World) -> Path | None:
    file = folder / f"out_of_memory_rank_{world.rank}.pickle"
    # The advice matters more: a full disk, or an allocator without snapshots, must not hide it.
    with contextlib.suppress(OSError, RuntimeError, AttributeError):
        torch.cuda.memory._dump_snapshot(str(file))
        return file
    return None


def _advice(error: BaseException, recipe: Recipe, world: World, snapshot: Path | None, folder: Path) -> str:
    train = recipe.train
    rank_batch = recipe.data.global_batch_size // world.size // train.accumulate
    ways = [f"--train.accumulate {2 * train.accumulate} halves the {rank_batch} images of a micro-batch"]
    if train.precision == "fp32" and world.device_type == "cuda":
        ways.append("--train.precision bf16-mixed halves activations")
    if world.size > 1 and train.strategy in ("auto", "ddp"):
        ways.append("--train.strategy zero2 or fsdp shards optimizer state and gradients over the ranks")
    if CheckpointStore(folder / FOLDER).newest_first():
        ways.append(
            "this run resumes with any train.strategy and number of ranks, but another train.accumulate or "
            f"precision needs a new run: another --out with --init-from {folder}"
        )
    ways.append("addertrain plan --memory GIB estimates what a rank needs")
    ways.append("see docs/troubleshooting.md#out-of-memory")
    kept = f"; a snapshot for torch's memory viewer is in {snapshot}" if snapshot else ""
    first = (str(error).strip() or "the allocator has no more memory").splitlines()[0]
    return f"out of memory on {world.device} of rank {world.rank} ({first:.160}); {'; '.join(ways)}{kept}"
