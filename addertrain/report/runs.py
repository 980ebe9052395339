"""Reads runs for a report and groups those that are seeds of the same recipe."""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from addertrain.checkpoint import CheckpointError
from addertrain.checkpoint.files import read_manifest, read_tensors
from addertrain.checkpoint.held import held_checkpoint
from addertrain.checkpoint.store import locate_checkpoint, what_is
from addertrain.errors import RunError, UsageError
from addertrain.recipe import Recipe
from addertrain.report.events import Curve, read_curves
from addertrain.report.sessions import Session, command_of_run, sessions_of
from addertrain.report.tables import file_name
from addertrain.train.data_record import RECORD
from addertrain.train.recipe_record import differing_keys, evaluation_keys, recipe_from_record
from addertrain.train.run_directory import RunDirectory, Summary
from addertrain.train.trained import evaluated_tensors
from addertrain.train.weights import weights_sha256

_TOP1 = "accuracy/val_top1"


@dataclass(frozen=True, eq=False)
class Run:
    """One run directory; `checkpoint` is its newest one, verified; None before the first one.

    `data` is the fingerprint of its data set, `digest` that of its weights; None if they were not recorded.
    """

    label: str
    path: Path
    recipe: Recipe
    summary: Summary | None
    checkpoint: Path | None
    epochs: int
    curves: dict[str, Curve]
    sessions: tuple[Session, ...] = ()
    data: str | None = None
    digest: str | None = None

    @property
    def command(self) -> str:
        """The command that reproduces it; empty if it was not recorded."""
        return command_of_run(self.path, self.sessions)

    @property
    def seed(self) -> int:
        """The recipe's."""
        return self.recipe.train.seed

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps per epoch; None before the first epoch has ended."""
        ends = self.curves.get(_TOP1)
        return ends.steps[0] if ends else None

    @functools.cached_property
    def weights(self) -> dict[str, Tensor]:
        """The weights that an evaluation uses, by name; empty before the first checkpoint."""
        return evaluated_tensors(self.checkpoint, self.recipe) if self.checkpoint else {}


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
        """The runs whose training has ended."""
        return tuple(run for run in self.runs if run.summary is not None)

    @property
    def whole(self) -> tuple[Run, ...]:
        """The finished runs, or all if none is finished, because an unfinished seed would shorten the
        others' curves.
        """
        return self.finished or self.runs

    @property
    def with_weights(self) -> tuple[Run, ...]:
        """The finished runs, or those with a checkpoint if none is finished."""
        return self.finished or tuple(run for run in self.runs if run.checkpoint is not None)


def read_runs(
    paths: Sequence[Path], warn: Callable[[str], None], *, holds: contextlib.ExitStack | None = None
) -> list[Group]:
    """The runs in the order of the arguments, grouped by recipe, seeds ascending.

    Args:
        holds: keeps checkpoints of runs in progress from being removed until it is closed.

    Raises:
        UsageError: no run was given, or one was given twice.
        RunError, CheckpointError, RecipeError: a run cannot be read, or its files contradict each other.
    """
    if not paths:
        raise UsageError("report: expected at least one run directory, got none; name one")
    places = [path.resolve() for path in paths]
    if len(set(places)) < len(places):
        twice = next(path for path, place in zip(paths, places, strict=True) if places.count(place) > 1)
        raise UsageError(f"{twice}: expected each run once, got it twice; name it once")
    labels = _labels(places)
    return group_runs(
        [_read(path, label, warn, holds) for path, label in zip(paths, labels, strict=True)], warn
    )


def group_runs(runs: Sequence[Run], warn: Callable[[str], None]) -> list[Group]:
    """Groups runs that were trained and evaluated in the same way, with every seed once; copies are left
    out.
    """
    groups: list[list[Run]] = []
    seen: list[Run] = []
    for run in runs:
        if original := next((other for other in seen if _is_copy(run, other)), None):
            warn(f"{run.path}: has the same weights as {original.path}, so only one of them is counted")
            continue
        seen.append(run)
        alike = [group for group in groups if _is_same(run, group[0])]
        new_to = [group for group in alike if all(run.seed != other.seed for other in group)]
        if new_to:
            new_to[0].append(run)
            continue
        if alike:
            warn(
                f"{run.path}: has the same seed ({run.seed}) as another run of this recipe, so it is shown "
                "separately"
            )
        groups.append([run])
    for group in groups:
        group.sort(key=lambda run: run.seed)
    return [Group(label, tuple(group)) for label, group in zip(_group_labels(groups), groups, strict=True)]


def _is_copy(run: Run, other: Run) -> bool:
    return run.digest is not None and run.digest == other.digest and _is_same(run, other)


def _is_same(run: Run, other: Run) -> bool:
    """Whether the two differ only in the seed, in training, data and evaluation."""
    return run.recipe.name == other.recipe.name and not _differences(run, other)


def _like(other: Run, run: Run) -> Recipe:
    """The other's recipe with this run's seed."""
    train = dataclasses.replace(other.recipe.train, seed=run.seed)
    return dataclasses.replace(other.recipe, train=train)


def _group_labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    """A label for each group, different from all others, also as a file name."""
    firsts = [group[0] for group in groups]
    labels: list[str] = []
    for first in firsts:
        label = _group_label(first, firsts)
        if file_name(label) in map(file_name, labels):
            label = f"{label}, run {first.label}"
        labels.append(label)
    return labels


def _group_label(run: Run, firsts: Sequence[Run]) -> str:
    """The recipe's name, and how it differs from the most frequent recipe of that name."""
    namesakes = [other for other in firsts if other.recipe.name == run.recipe.name]
    usual = min(namesakes, key=lambda one: sum(len(_differences(one, other)) for other in namesakes))
    own = sorted(_differences(usual, run))
    return f"{run.recipe.name} ({', '.join(own)})" if own else run.recipe.name


def _differences(run: Run, other: Run) -> list[str]:
    """The settings of the other one that differ, as YAML writes them ("optim.lr 0.05"), or was trained on."""
    like = _like(other, run)
    keys = [
        line.partition(":")[0]
        for line in (*differing_keys(run.recipe, like), *evaluation_keys(run.recipe, like))
    ]
    found = [f"{key} {_yaml(functools.reduce(getattr, key.split('.'), like))}" for key in dict.fromkeys(keys)]
    if run.data and other.data and run.data != other.data:
        found.append(f"data {other.data[:8]}")
    return found


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _labels(places: Sequence[Path]) -> list[str]:
    """The last name of every path, with as many parent folders as distinguish them."""
    for depth in range(1, max(len(place.parts) for place in places) + 1):
        labels = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(labels)) == len(labels):
            break
    return labels


def _read(path: Path, label: str, warn: Callable[[str], None], holds: contextlib.ExitStack | None) -> Run:
    directory = RunDirectory(path)
    recipe = directory.read_recipe() if path.is_dir() else None
    if recipe is None:
        found = "a folder without recipe.yaml" if path.is_dir() else what_is(path)
        raise RunError(f"{path}: expected the directory of a run, got {found}; check the path")
    summary = directory.read_summary()
    checkpoint: Path | None = None
    if directory.store.newest_first():
        if holds is not None and summary is None:
            checkpoint = holds.enter_context(held_checkpoint(path, warn)).files
        else:
            checkpoint = locate_checkpoint(path, warn)
    epochs, digest = 0, None
    manifest: Mapping[str, Any] = {}
    if checkpoint is not None:
        manifest = read_manifest(checkpoint)
        epochs = manifest["epoch"]
        trained = recipe_from_record(manifest.get("recipe"), source=str(checkpoint))
        if different := differing_keys(recipe, trained):
            raise RunError(
                f"{path}: expected recipe.yaml to match the recipe in {checkpoint.name}, got a different "
                f"one ({different[0]}); restore it"
            )
        digest = weights_sha256(read_tensors(checkpoint, "model"))
    if summary is not None:
        _check_summary(path, summary, digest)
    curves = read_curves(path)
    if (logged := len(curves[_TOP1].steps) if _TOP1 in curves else 0) < epochs:
        warn(
            f"{path}: expected {epochs} evaluations in the event files, got {logged}, so its curves have gaps"
        )
    sessions = sessions_of(path, manifest)
    return Run(label, path, recipe, summary, checkpoint, epochs, curves, sessions, _data(manifest), digest)


def _data(manifest: Mapping[str, Any]) -> str | None:
    """The fingerprint of the data on which a run was trained and evaluated."""
    record = manifest.get(RECORD)
    if not record:
        return None
    return hashlib.sha256(f"{record['train']['sha256']} {record['test']['sha256']}".encode()).hexdigest()


def _check_summary(path: Path, summary: Summary, digest: str | None) -> None:
    if digest is None:
        raise CheckpointError(
            f"{path}: expected the final checkpoint of a finished run, got none; restore it, or leave this "
            "run out"
        )
    if digest != summary.weights_sha256:
        raise RunError(
            f"{path}: expected summary.json to describe the newest checkpoint, got that of other weights; "
            "addertrain evaluate measures the checkpoint"
        )
