"""Runs as a report sees them: what is on the disk of each, and which are seeds of one recipe."""

import dataclasses
import functools
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from addertrain.checkpoint import CheckpointError
from addertrain.checkpoint.files import read_manifest, read_tensors
from addertrain.checkpoint.store import locate_checkpoint, what_is
from addertrain.recipe import Recipe
from addertrain.report.events import Curve, read_curves
from addertrain.train.errors import RunError, UsageError
from addertrain.train.recipe_record import differing_keys, recipe_from_record
from addertrain.train.run_directory import RunDirectory, Summary
from addertrain.train.trained import evaluated_tensors
from addertrain.train.weights import weights_sha256

_TOP1 = "accuracy/val_top1"


@dataclass(frozen=True, eq=False)
class Run:
    """One run directory; `checkpoint` is its newest, verified, None before the first one."""

    label: str
    path: Path
    recipe: Recipe
    summary: Summary | None
    checkpoint: Path | None
    epochs: int
    curves: dict[str, Curve]
    command: str

    @property
    def seed(self) -> int:
        """The recipe's."""
        return self.recipe.train.seed

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps an epoch; None before the first one has ended."""
        ends = self.curves.get(_TOP1)
        return ends.steps[0] if ends else None

    @functools.cached_property
    def weights(self) -> dict[str, Tensor]:
        """What an evaluation reads, by name; nothing before the first checkpoint."""
        return evaluated_tensors(self.checkpoint) if self.checkpoint else {}


@dataclass(frozen=True, eq=False)
class Group:
    """The seeds of one recipe."""

    label: str
    runs: tuple[Run, ...]

    @property
    def recipe(self) -> Recipe:
        """That of its first seed."""
        return self.runs[0].recipe

    @property
    def finished(self) -> tuple[Run, ...]:
        """Those whose training has ended."""
        return tuple(run for run in self.runs if run.summary is not None)

    @property
    def whole(self) -> tuple[Run, ...]:
        """The finished ones, or where none is, all: an unfinished seed would cut the others' curves short."""
        return self.finished or self.runs

    @property
    def with_weights(self) -> tuple[Run, ...]:
        """The finished ones, or where none is, those that have a checkpoint."""
        return self.finished or tuple(run for run in self.runs if run.checkpoint is not None)


def read_runs(paths: Sequence[Path], warn: Callable[[str], None]) -> list[Group]:
    """The runs in the order of the arguments, grouped by recipe, seeds ascending.

    Raises:
        UsageError: none was given, or one twice.
        RunError, CheckpointError, RecipeError: one that cannot be read, or does not agree with itself.
    """
    if not paths:
        raise UsageError("report: expected at least one run directory, got none")
    places = [path.resolve() for path in paths]
    if len(set(places)) < len(places):
        twice = next(path for path, place in zip(paths, places, strict=True) if places.count(place) > 1)
        raise UsageError(f"{twice}: was given twice; a run counts once")
    return group_runs([_read(path, label, warn) for path, label in zip(paths, _labels(places), strict=True)])


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs whose recipes have one name and differ in the seed alone go together."""
    groups: list[list[Run]] = []
    for run in runs:
        for group in groups:
            if _is_same(run, group[0]):
                group.append(run)
                break
        else:
            groups.append([run])
    for group in groups:
        group.sort(key=lambda run: run.seed)
    firsts = [group[0] for group in groups]
    return [Group(_group_label(group[0], firsts), tuple(group)) for group in groups]


def _is_same(run: Run, other: Run) -> bool:
    return run.recipe.name == other.recipe.name and not differing_keys(run.recipe, _like(other, run))


def _like(other: Run, run: Run) -> Recipe:
    """The other's recipe with this run's seed."""
    train = dataclasses.replace(other.recipe.train, seed=run.seed)
    return dataclasses.replace(other.recipe, train=train)


def _group_label(run: Run, firsts: Sequence[Run]) -> str:
    """The recipe's name, and how it differs from the most usual one of that name."""
    namesakes = [other for other in firsts if other.recipe.name == run.recipe.name]
    usual = min(namesakes, key=lambda one: sum(len(_differences(one, other)) for other in namesakes))
    own = sorted(_differences(usual, run))
    return f"{run.recipe.name} ({', '.join(own)})" if own else run.recipe.name


def _differences(run: Run, other: Run) -> list[str]:
    """What the other one has set differently, as "optim.lr 0.05"."""
    lines = differing_keys(run.recipe, _like(other, run))
    return [line.partition(" there, ")[0].replace(": ", " ", 1) for line in lines]


def _labels(places: Sequence[Path]) -> list[str]:
    """The last name of every path, with as many folders in front as tell all of them apart."""
    for depth in range(1, max(len(place.parts) for place in places) + 1):
        labels = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(labels)) == len(labels):
            break
    return labels


def _read(path: Path, label: str, warn: Callable[[str], None]) -> Run:
    directory = RunDirectory(path)
    recipe = directory.read_recipe() if path.is_dir() else None
    if recipe is None:
        found = "a folder without recipe.yaml" if path.is_dir() else what_is(path)
        raise RunError(f"{path}: expected the directory of a run, got {found}; check the path")
    summary = directory.read_summary()
    checkpoint = locate_checkpoint(path, warn) if directory.store.newest_first() else None
    epochs = 0
    if checkpoint is not None:
        manifest = read_manifest(checkpoint)
        epochs = manifest["epoch"]
        trained = recipe_from_record(manifest.get("recipe"), source=str(checkpoint))
        if different := differing_keys(recipe, trained):
            raise RunError(f"{path}: its recipe.yaml is not what {checkpoint.name} says ({different[0]})")
    if summary is not None:
        _check_summary(path, summary, checkpoint)
    curves = read_curves(path)
    if (logged := len(curves[_TOP1].steps) if _TOP1 in curves else 0) < epochs:
        warn(f"{path}: expected {epochs} evaluations in its event files, got {logged}; its curves have gaps")
    return Run(label, path, recipe, summary, checkpoint, epochs, curves, _command(path))


def _check_summary(path: Path, summary: Summary, checkpoint: Path | None) -> None:
    if checkpoint is None:
        raise CheckpointError(f"{path}: expected the checkpoint of a finished run, found none")
    if weights_sha256(read_tensors(checkpoint, "model")) != summary.weights_sha256:
        raise RunError(
            f"{path}: expected summary.json to be of its newest checkpoint, got one of other weights; "
            "addertrain evaluate says what they give"
        )


def _command(path: Path) -> str:
    """The command of the last session, as it can be repeated elsewhere: without this machine's folders."""
    try:
        sessions = json.loads((path / "environment.json").read_text(encoding="utf-8"))["sessions"]
        words = shlex.split(sessions[-1]["command"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    program = words[0] if words else ""
    if Path(program).name != "addertrain" and not program.endswith("addertrain/__main__.py"):
        return "a Python program"
    kept, rest = ["addertrain"], words[1:]
    while rest:
        word = rest.pop(0)
        name = word.partition("=")[0]
        if name in ("--out", "--data.root", "--resume"):
            if "=" not in word and rest:
                rest.pop(0)
            continue
        kept.append(word[word.index("recipes/") :] if "/recipes/" in word else word)
    return shlex.join(kept)
