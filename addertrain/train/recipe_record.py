"""Recipes as plain values, as checkpoints record them, and the differences that change training."""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

from addertrain.errors import CheckpointError
from addertrain.recipe import Recipe
from addertrain.recipe.keys import FORMER_KEYS

# Keys that decide what an evaluation reads; training is not affected.
EVALUATION = ("train.recalibrate_batches", "train.flip_evaluation")
# Keys that may differ when a run resumes: names and expectations, the folder and time-out of the data, which
# checkpoints are kept, evaluation, and how ranks share the work and wait (all strategies train the same).
_HARMLESS = {
    "name", "data.root", "data.threads", "data.timeout_seconds", "train.strategy", "train.kernels",
    *EVALUATION, "train.evaluate_uncalibrated",
    "train.keep_checkpoints", "train.save_every_steps", "train.save_every_minutes", "train.timeout_seconds",
    "train.on_save_failure", "train.on_nonfinite", "train.nonfinite_limit",
}  # fmt: skip
_HARMLESS_SECTIONS = {"expected"}


def recipe_to_record(recipe: Recipe) -> dict[str, Any]:
    """The recipe as nested dictionaries of plain values."""
    return dataclasses.asdict(recipe)


def recipe_from_record(record: dict[str, Any] | None, *, source: str) -> Recipe:
    """The inverse of `recipe_to_record`.

    Raises:
        CheckpointError: there is no recipe, or it has other keys because another version wrote it.
    """
    if record is None:
        raise CheckpointError(
            f"{source}: expected a recipe in its manifest, got none; evaluate it with the script that wrote "
            "it"
        )
    hints = typing.get_type_hints(Recipe)
    try:
        return Recipe(
            **{
                key: hints[key](**_renamed(key, value)) if isinstance(value, dict) else value
                for key, value in record.items()
            }
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{source}: expected a recipe that this version reads, got: {error}; use the version that wrote "
            "it"
        ) from None


def _renamed(section: str, values: dict[str, Any]) -> dict[str, Any]:
    """A section of a record with today's names for the keys of old runs."""
    return {
        FORMER_KEYS.get(f"{section}.{key}", key).rpartition(".")[2]: value for key, value in values.items()
    }


def differing_keys(recipe: Recipe, other: Recipe) -> list[str]:
    """The keys that change training and differ, as "optim.lr: 0.1 there, 0.05 here"; "there" is `other`."""
    return _differences(recipe, other, lambda key: key not in _HARMLESS)


def changed_keys(recipe: Recipe, other: Recipe) -> list[str]:
    """The keys that differ but may differ when a run resumes, in the same format."""
    return _differences(recipe, other, lambda key: key in _HARMLESS)


def evaluation_keys(recipe: Recipe, other: Recipe) -> list[str]:
    """The keys that differ and change what an evaluation gives, in the same format."""
    return _differences(recipe, other, lambda key: key in EVALUATION)


def _differences(recipe: Recipe, other: Recipe, counts: Callable[[str], bool]) -> list[str]:
    ours, theirs = _flat(recipe), _flat(other)
    return [
        f"{key}: {theirs[key]} there, {ours[key]} here"
        for key in ours
        if counts(key) and ours[key] != theirs[key]
    ]


def _flat(recipe: Recipe) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for section, value in recipe_to_record(recipe).items():
        if section in _HARMLESS_SECTIONS:
            continue
        flat |= (
            {f"{section}.{key}": inner for key, inner in value.items()}
            if isinstance(value, dict)
            else {section: value}
        )
    return flat
