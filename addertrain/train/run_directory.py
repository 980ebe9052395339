"""What a run leaves on the disk beside its checkpoints: the recipe, the environment, the result."""

import datetime
import json
import math
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch

import addertrain
from addertrain import libraries
from addertrain.checkpoint.store import FOLDER, CheckpointStore
from addertrain.durable import write_text
from addertrain.recipe import Recipe, load_recipe, recipe_to_yaml
from addertrain.train.errors import RunError
from addertrain.train.processes import World


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The result of a run, as in `summary.json`; top1 and top5 in percent, the hash over all weights.

    `steps` counts skipped ones too; `skipped_steps` and `rollbacks` are what numerical faults have cost.
    """

    top1: float
    top5: float
    loss: float
    epochs: int
    steps: int
    images_per_second: float
    seconds: float
    world_size: int
    seed: int
    recipe: str
    weights_sha256: str
    skipped_steps: int = 0
    rollbacks: int = 0


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run."""

    path: Path

    @property
    def store(self) -> CheckpointStore:
        """Its checkpoints."""
        return CheckpointStore(self.path / FOLDER)

    @property
    def is_started(self) -> bool:
        """Whether some run has written here."""
        return any((self.path / name).exists() for name in ("recipe.yaml", FOLDER, "summary.json"))

    def read_recipe(self) -> Recipe | None:
        """The resolved recipe of the run, if one has been written."""
        file = self.path / "recipe.yaml"
        return load_recipe(file) if file.exists() else None

    def read_summary(self) -> Summary | None:
        """The result, if the run has finished.

        Raises:
            RunError: there is a file, but it is none of ours.
        """
        file = self.path / "summary.json"
        if not file.exists():
            return None
        try:
            plain: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            known: dict[str, Any] = {
                key: math.nan if value is None else value for key, value in plain.items()
            }
            return Summary(**known)
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(
                f"{file}: expected the summary of a run, got something else ({error}); remove it"
            ) from None

    def open(self, recipe: Recipe, world: World, resumed_from: Path | None) -> None:
        """Writes the recipe and the environment before the first step.

        Raises:
            RunError: the folder cannot be written.
        """
        try:
            self.store.folder.mkdir(parents=True, exist_ok=True)
            self.store.sweep()
            write_text(self.path / "recipe.yaml", recipe_to_yaml(recipe))
            self._add_session(environment(world, resumed_from))
        except OSError as error:
            raise RunError(
                f"{self.path}: expected a folder that can be written, got: {error.strerror}; "
                "choose another --out"
            ) from None

    def write_summary(self, summary: Summary) -> None:
        """Writes the result, the last file of a run; a NaN becomes null, as JSON has it."""
        plain = {
            key: value if not isinstance(value, float) or math.isfinite(value) else None
            for key, value in asdict(summary).items()
        }
        write_text(self.path / "summary.json", json.dumps(plain, indent=1) + "\n")

    def _add_session(self, session: dict[str, Any]) -> None:
        """environment.json lists every start: a resumption may meet other versions or another machine."""
        file = self.path / "environment.json"
        try:
            sessions = json.loads(file.read_text(encoding="utf-8"))["sessions"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            sessions = []
        write_text(file, json.dumps({"sessions": [*sessions, session]}, indent=1) + "\n")


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {
        "addertrain": addertrain.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
    }


def environment(world: World, resumed_from: Path | None) -> dict[str, Any]:
    """What this session runs on."""
    has_cuda = world.device_type == "cuda"
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "resumed_from": resumed_from.name if resumed_from else None,
        "world_size": world.size,
        "num_nodes": world.num_nodes,
        "device": torch.cuda.get_device_name() if has_cuda else platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "cuda": torch.version.cuda if has_cuda else None,
        "versions": versions(),
        "operators": libraries.status(),
    }
