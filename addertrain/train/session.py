"""The record of every session of a run: command, ranks, strategy and machine."""

import datetime
import functools
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch

import addertrain
from addertrain import libraries
from addertrain.checkpoint.files import read_manifest
from addertrain.processor import processor_name
from addertrain.recipe import Recipe, TrainRecipe
from addertrain.train.processes import World
from addertrain.train.recipe_record import changed_keys, recipe_from_record

SESSIONS = "sessions"  # of a manifest, of summary.json and of environment.json
OWN_CODE = "own_code"  # of a session that has parts of a user's own
# What manifests and summaries keep of a session; environment.json has all of it.
_LINEAGE = (
    "started", "command", "resumed_from", "changed", "strategy", "world_size", "num_nodes", "launcher",
    "device", OWN_CODE,
)  # fmt: skip


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {
        "addertrain": addertrain.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
    }


def strategy_name(train: TrainRecipe, world: World) -> str:
    """The strategy that `train.strategy` results in here."""
    if train.strategy != "auto":
        return train.strategy
    return "ddp" if world.is_launched else "single process"


def session_record(
    recipe: Recipe, world: World, resumed_from: Path | None, own_code: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """The record of this session as plain values. `command` is for a shell; `changed` are the keys that
    differ from the checkpoint's and may differ.

    Args:
        own_code: the records of your own code.
    """
    has_cuda = world.device_type == "cuda"
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "resumed_from": resumed_from.name if resumed_from else None,
        "changed": _changed(recipe, resumed_from),
        "strategy": strategy_name(recipe.train, world),
        "world_size": world.size,
        "num_nodes": world.num_nodes,
        "launcher": _launcher(world),
        "device": torch.cuda.get_device_name() if has_cuda else processor_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "cuda": torch.version.cuda if has_cuda else None,
        "versions": versions(),
        "operators": libraries.status(),
        **({OWN_CODE: list(own_code)} if own_code else {}),
    }


def lineage(checkpoint: Path | None, session: dict[str, Any]) -> list[dict[str, Any]]:
    """The sessions that led to `checkpoint`, and this one."""
    earlier = read_manifest(checkpoint).get(SESSIONS, []) if checkpoint is not None else []
    return [*earlier, {key: session[key] for key in _LINEAGE if key in session}]


def _changed(recipe: Recipe, checkpoint: Path | None) -> list[str]:
    record = read_manifest(checkpoint).get("recipe") if checkpoint is not None else None
    if record is None:
        return []
    return changed_keys(recipe, recipe_from_record(record, source=str(checkpoint)))


def _launcher(world: World) -> str | None:
    """The launcher of the ranks, by its variables; None for a single process."""
    if not world.is_launched:
        return None
    return "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ else "another"


@functools.cache
def source_commit() -> str | None:
    """The commit of the checkout that this package runs from, "+changes" if it was changed; otherwise
    None.
    """
    checkout = Path(addertrain.__file__).parent.parent
    if not (checkout / ".git").exists():  # installed; a repository of a parent folder is another project's
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--exclude=*"]
    try:
        said = subprocess.run(
            [*command, "--dirty=+changes"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None
