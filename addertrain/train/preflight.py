"""Finds within seconds what would stop a run hours later: one line per check, over all ranks of a launcher.

In every check each rank computes a finding, and a verdict is made from all findings. A rank whose check fails
still takes part in the exchange, so that a broken machine is named instead of blocking the others.
"""

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from addertrain.errors import RunError
from addertrain.recipe import Recipe
from addertrain.train import preflight_checks as checks
from addertrain.train.processes import World, joined_processes, on_first_rank

_T = TypeVar("_T")


@dataclass(frozen=True)
class Result:
    """One line of the report."""

    name: str
    is_fine: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.is_fine else 'FAIL'}  {self.name:<13} {self.text}"


def preflight(
    recipe: Recipe, out: Path, report: Callable[[Result], None], *, timeout_s: float = 30.0
) -> bool:
    """Runs every check of a run of `recipe` in `out`; every rank of the launcher has to call it.

    Args:
        report: receives each result on the first rank as soon as it is known.
        timeout_s: how long ranks wait for one that does not answer.

    Returns:
        Whether all checks passed, the same on every rank.

    Raises:
        LostRankError: ranks cannot reach each other, so that nothing else can be checked.
    """
    with joined_processes(timeout_s=timeout_s) as world:
        flight = _Preflight(world, report)
        flight.check("processes", lambda: (socket.gethostname(), world.device_type), checks.say_processes)
        flight.check("all-reduce", lambda: checks.time_all_reduce(world), checks.say_all_reduce)
        flight.check("versions", checks.versions_here, checks.say_versions)
        flight.check("device", lambda: checks.device_here(world), checks.say_devices)
        flight.check("operators", lambda: checks.operators_here(world), checks.say_operators)
        flight.check("data", lambda: checks.data_here(recipe, world), checks.say_data)
        flight.check("kernels", lambda: checks.kernels_here(recipe, out, world), checks.say_kernels)
        flight.check("disk", lambda: checks.disk_here(recipe, out, world), checks.say_disk)
        _check_shared_folder(flight, out, world)
        flight.meet()
        flight.check("clocks", time.time, checks.say_clocks)
        return flight.is_fine


class _Preflight:
    """Runs checks on all ranks and records the results."""

    def __init__(self, world: World, report: Callable[[Result], None]) -> None:
        self.world = world
        self.is_fine = True
        self._report = report

    def check(self, name: str, here: Callable[[], _T], verdict: Callable[[Sequence[_T]], str]) -> None:
        """Collects the findings of all ranks and makes the verdict; an error in either fails the check."""
        try:
            found: tuple[bool, Any] = (True, here())
        except Exception as error:
            found = (False, f"rank {self.world.rank} on {socket.gethostname()}: {_one_line(error)}")
        self._add(name, self._all(found), verdict)

    def meet(self) -> None:
        """Lets all ranks continue at the same moment."""
        if self.world.is_launched:
            dist.barrier()

    def _all(self, found: tuple[bool, Any]) -> list[tuple[bool, Any]]:
        if not self.world.is_launched:
            return [found]
        everything: list[Any] = [None] * self.world.size
        dist.all_gather_object(everything, found)
        return everything

    def _add(self, name: str, found: list[tuple[bool, Any]], verdict: Callable[[Sequence[Any]], str]) -> None:
        failed = [text for is_fine, text in found if not is_fine]
        if failed:
            more = f" (and {len(failed) - 1} more ranks)" if len(failed) > 1 else ""
            result = Result(name, False, failed[0] + more)
        else:
            try:
                result = Result(name, True, verdict([value for _, value in found]))
            except RunError as error:
                result = Result(name, False, str(error))
        self.is_fine &= result.is_fine
        if self.world.is_first:
            self._report(result)


def _check_shared_folder(flight: _Preflight, out: Path, world: World) -> None:
    """Every rank reads the checkpoints that the first one writes: so all must see the same folder."""
    marker = on_first_rank(lambda: checks.leave_marker(out))
    flight.check("folder", lambda: checks.find_marker(marker), checks.say_folder)
    on_first_rank(lambda: checks.remove_marker(marker))


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, RunError | ValueError) else f"{type(error).__name__}: {text:.300}"
