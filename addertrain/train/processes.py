"""The processes of a run: the rank of this one, joining and leaving the process group.

Under torchrun (or any launcher that sets RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE) every process
joins one group; without a launcher there is one process and no group.
"""

import datetime
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import torch
import torch.distributed as dist

from addertrain.errors import CheckpointError, LostRankError, RunError, UsageError
from addertrain.train.launcher import VARIABLES as _VARIABLES
from addertrain.train.launcher import launcher_variables

_T = TypeVar("_T")
_KINDS: dict[str, type[RunError | CheckpointError]] = {
    kind.__name__: kind for kind in (CheckpointError, UsageError)
}
# How gloo and the store speak of a rank that is gone: they raise plain RuntimeErrors.
_LOST = re.compile(r"gloo|Timed out|timed out|Connection (closed|reset|refused)|Broken pipe|unreachable")


@dataclass(frozen=True)
class World:
    """The rank of this process, and the numbers of ranks and machines."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    is_launched: bool = False
    device_type: Literal["cpu", "cuda"] = "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this process prints, writes files and decides."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return torch.device("cuda", self.local_rank) if self.device_type == "cuda" else torch.device("cpu")

    @property
    def num_nodes(self) -> int:
        """The number of machines."""
        return self.size // self.local_size


def detect_world() -> World:
    """Reads the launcher's variables and the number of GPUs.

    Raises:
        UsageError: some of the variables are missing, or there are fewer GPUs than processes.
    """
    device_type: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu"
    present = [name for name in _VARIABLES if name in os.environ]
    if "RANK" not in present and "WORLD_SIZE" not in present:
        return World(device_type=device_type)
    values = launcher_variables()
    if values is None:
        got = ", ".join(f"{name}={os.environ[name]}" for name in present)
        raise UsageError(
            f"launcher: expected consistent whole numbers in {', '.join(_VARIABLES)}, got {got}; unset "
            f"{'it' if len(present) == 1 else 'them'} to run one process, or start with torchrun; "
            "see docs/troubleshooting.md#a-launchers-variables"
        )
    rank, size, local_rank, local_size = values
    if device_type == "cuda" and torch.cuda.device_count() < local_size:
        raise UsageError(
            f"expected a GPU for each process, got {local_size} processes and {torch.cuda.device_count()} "
            f"GPUs on this machine; start torchrun with --nproc-per-node {torch.cuda.device_count()}"
        )
    return World(rank, size, local_rank, local_size, True, device_type)


@contextmanager
def joined_processes(*, timeout_s: float = 600.0) -> Iterator[World]:
    """Joins the group that the launcher describes and leaves it at the end, all ranks together.

    Args:
        timeout_s: how long ranks wait for one of them before they give up.

    Raises:
        LostRankError: a rank ended, or did not answer within this time.
    """
    world = detect_world()
    if world.device_type == "cuda":
        # The weight gradient is cuDNN's; its fastest algorithms add in an order that changes from run to run.
        torch.backends.cudnn.deterministic = True
    if not world.is_launched or dist.is_initialized():
        yield world
        return
    try:
        _join(world, datetime.timedelta(seconds=timeout_s))
        yield world
        # Ranks that leave at different times can tear a group down under each other.
        dist.barrier()
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or _LOST.search(str(error)):
            raise LostRankError(_lost(error, timeout_s)) from error
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _join(world: World, timeout: datetime.timedelta) -> None:
    if world.device_type == "cuda":
        device = torch.device("cuda", world.local_rank)
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device, timeout=timeout)
    else:
        dist.init_process_group("gloo", timeout=timeout)


def _lost(error: RuntimeError, timeout_s: float) -> str:
    reason = str(error).splitlines()[0].rpartition("] ")[2]
    return (
        f"expected an answer of all ranks within {timeout_s:g} s, got: {reason}; look for the first error of "
        "another rank, else check the network; start again to resume; see "
        "docs/troubleshooting.md#ranks-hang"
    )


def on_first_rank(function: Callable[[], _T]) -> _T:
    """Runs `function` on rank 0 only and gives every rank its value, or its error.

    Raises:
        RunError, CheckpointError: what `function` raised, on every rank.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return function()
    outcome: list[tuple[bool, object]] = [(False, None)]
    if dist.get_rank() == 0:
        try:
            outcome = [(True, function())]
        except Exception as error:
            dist.broadcast_object_list([(False, (type(error).__name__, str(error)))])
            raise
    dist.broadcast_object_list(outcome)
    is_fine, value = outcome[0]
    if is_fine:
        return cast(_T, value)
    name, message = cast(tuple[str, str], value)
    raise _KINDS.get(name, RunError)(message)
