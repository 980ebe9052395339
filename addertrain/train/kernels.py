"""Chooses the operators of a run: compiled ones, which are first compared with the reference, or the
reference.

`train.kernels: compiled` compares the kernels of every adder layer with the reference before the first step
(`addertrain.proof`) and stops the run on all ranks if one is wrong. Results are remembered, so that the next
start takes no time.
"""

import contextlib
import datetime
import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist

from addertrain import compiled, libraries
from addertrain.data import ImageData
from addertrain.durable import write_text
from addertrain.errors import RunError
from addertrain.proof import CompiledOperators, Outcome, ProofStore, ProvenLayer, layers_of, prove
from addertrain.proof.environment import environment_of
from addertrain.proof.layers import merged
from addertrain.proof.operators import is_compiled, library_of
from addertrain.proof.reference_operators import reference_operators
from addertrain.recipe import Recipe
from addertrain.train.account import say_on_first
from addertrain.train.autocast import AUTOCAST
from addertrain.train.building import build_network
from addertrain.train.network import image_sizes
from addertrain.train.processes import World
from addertrain.train.session import versions

REPORT = "kernel_proof.json"


@dataclass(frozen=True)
class Found:
    """The result of a rank's proof, as plain values that ranks exchange.

    `trouble`: why nothing could be compared.
    """

    rank: int
    host: str
    environment: dict[str, Any]
    outcome: Outcome | None = None
    trouble: str = ""


@contextlib.contextmanager
def trusted_kernels(
    recipe: Recipe, data: ImageData, world: World, folder: Path, *, with_int8: bool = False
) -> Iterator[None]:
    """Uses the operators of `train.kernels` within the block; every rank has to call it.

    Args:
        folder: the folder for the report of a failure.
        with_int8: whether the network is also evaluated in 8 bits.

    Raises:
        RunError: on every rank, if a kernel of any rank is wrong.
    """
    if recipe.train.kernels == "reference":
        with reference_operators():
            yield
        return
    found = _of_every_rank(prove_here(recipe, data, world, with_int8=with_int8), world)
    check(found, folder if world.is_first else None)
    tried = [one for one in found if one.outcome is not None and one.outcome.num_proven]
    if tried:
        slowest = max(tried, key=lambda one: one.outcome.seconds if one.outcome else 0.0).outcome
        assert slowest is not None
        say_on_first(
            world,
            f"kernels      {slowest.num_proven} of {slowest.num_layers} different adder layers compared with "
            f"the reference in {slowest.seconds:.1f} s: right",
        )
    yield


def prove_here(recipe: Recipe, data: ImageData, world: World, *, with_int8: bool = False) -> Found:
    """Runs this rank's proof: on every GPU, and on CPUs on the first rank of each machine. Raises nothing."""
    environment: dict[str, Any] = {}
    try:
        environment = environment_of(world.device)
        if trouble := _library_trouble(world.device_type):
            return Found(world.rank, socket.gethostname(), environment, trouble=trouble)
        if not is_compiled(world.device_type) or (world.device_type == "cpu" and world.local_rank > 0):
            return Found(world.rank, socket.gethostname(), environment)
        outcome = prove(
            proven_layers(recipe, data, world), CompiledOperators(world.device),
            store=ProofStore(environment), with_int8=with_int8, with_powers=recipe.schedule.p_start > 1,
        )  # fmt: skip
        return Found(world.rank, socket.gethostname(), environment, outcome)
    except Exception as error:
        reason = f"the comparison failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return Found(world.rank, socket.gethostname(), environment, trouble=reason)


def proven_layers(recipe: Recipe, data: ImageData, world: World) -> dict[ProvenLayer, list[str]]:
    """Every distinct adder layer of the recipe's network, with the names of identical layers."""
    with torch.device("meta"):
        model = build_network(recipe.model, num_classes=data.num_classes, in_channels=len(data.mean))
    images = max(1, recipe.data.global_batch_size // recipe.train.accumulate // world.size)
    passes = [
        layers_of(
            model, (len(data.mean), *size), images=images, autocast=AUTOCAST[recipe.train.precision],
            channels_last=recipe.train.channels_last, device_type=world.device_type,
        )
        for size in sorted(set(image_sizes(recipe.data, data)))
    ]  # fmt: skip
    return merged(*passes)


def _library_trouble(device_type: str) -> str:
    """Why an existing compiled library does not work; without one the reference is used and a warning says
    so.
    """
    name = library_of(device_type)
    if compiled.find(name) is None or libraries.is_loaded(name):
        return ""
    if device_type == "cuda" and not torch.version.cuda:
        return ""
    return f"{name}.so is there and does not load ({libraries.status()}); run launch/setup again"


def _of_every_rank(found: Found, world: World) -> list[Found]:
    """The results of all ranks, exchanged by gloo, because a GPU whose kernel failed cannot take part in a
    collective.
    """
    if not dist.is_initialized() or world.size == 1:
        return [found]
    # new_group is typed as if a rank might stand outside the group that it makes.
    group = cast(
        "dist.ProcessGroup | None", None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
    )
    everything: list[Any] = [None] * world.size
    dist.all_gather_object(everything, found, group=group)
    return everything


def check(found: Sequence[Found], folder: Path | None) -> None:
    """Checks the results of all ranks; with `folder` None another rank writes the report.

    Raises:
        RunError: a kernel is wrong or could not be compared; the line names the report.
    """
    wrong = [one for one in found if one.trouble or (one.outcome is not None and one.outcome.failures)]
    if not wrong:
        return
    first = wrong[0]
    where = f"rank {first.rank} on {first.host}" if len(found) > 1 else first.host
    device = first.environment.get("device", "this device")
    if first.trouble:
        raise RunError(
            f"train.kernels: compiled: expected to compare the kernels with the reference, got on {where} "
            f"({device}): {first.trouble}; or set train.kernels: reference"
        )
    assert first.outcome is not None
    failures = first.outcome.failures
    more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
    report = "" if folder is None else _write_report(folder, found)
    raise RunError(
        f"train.kernels: compiled: expected every kernel to match the reference, got on {where} ({device}, "
        f"torch {torch.__version__}) {failures[0]}{more}; {report}run launch/setup again, or set "
        "train.kernels: reference; see docs/troubleshooting.md#a-kernel-is-wrong"
    )


def _write_report(folder: Path, found: Sequence[Found]) -> str:
    """Writes the report of a failure to the folder or, if that is not writable, to the working folder."""
    record = {
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "operators": libraries.status(),
        "ranks": [
            {
                "rank": one.rank, "host": one.host, "environment": one.environment, "trouble": one.trouble,
                "outcome": one.outcome.record if one.outcome else None,
            }
            for one in found
        ],
    }  # fmt: skip
    for place in (folder, Path()):
        with contextlib.suppress(OSError):
            write_text(place / REPORT, json.dumps(record, indent=1) + "\n")
            return f"report {place / REPORT} with your issue; "
    return ""
