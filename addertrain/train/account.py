"""The record of a run: its first line, the entries of every manifest, and the final summary."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from addertrain.checkpoint.files import read_manifest, read_tensors
from addertrain.data import ImageData
from addertrain.recipe import Recipe
from addertrain.train.callbacks.clock import RunClock
from addertrain.train.callbacks.guard import FAULTS
from addertrain.train.classification_counts import Score
from addertrain.train.data_record import RECORD as DATA
from addertrain.train.data_record import data_record
from addertrain.train.initial_weights import InitialWeights
from addertrain.train.output import say
from addertrain.train.processes import World
from addertrain.train.recipe_record import recipe_to_record
from addertrain.train.run_directory import RunDirectory, Summary
from addertrain.train.session import SESSIONS, source_commit, strategy_name, versions
from addertrain.train.weights import weights_sha256


@dataclass(frozen=True)
class FinishedTraining:
    """A finished training: its last checkpoint, its clock, and its sessions."""

    checkpoint: Path
    clock: RunClock
    sessions: list[dict[str, Any]]


def manifest_entries(
    recipe: Recipe,
    data: ImageData,
    world: World,
    initial: InitialWeights | None,
    sessions: list[dict[str, Any]],
) -> dict[str, Any]:
    """The entries on the run in every checkpoint's manifest."""
    return {
        DATA: data_record(data) if world.is_first else None,
        SESSIONS: sessions,
        "recipe": recipe_to_record(recipe),
        "seed": recipe.train.seed,
        "world_size": world.size,
        "versions": versions(),
        "commit": source_commit() if world.is_first else None,
        **(initial.about if initial is not None else {}),
    }


def sum_up(
    recipe: Recipe, run: RunDirectory, world: World, trained: FinishedTraining, score: Score
) -> Summary:
    """Writes the result of a run that has been trained and evaluated; it is the last file of a run."""
    manifest = read_manifest(trained.checkpoint)
    steps = manifest["global_step"]
    faults = manifest["state"].get(FAULTS, {})
    summary = Summary(
        top1=score.top1,
        top5=score.top5,
        loss=score.loss,
        epochs=manifest["epoch"],
        steps=steps,
        images_per_second=steps * recipe.data.global_batch_size / max(trained.clock.train_seconds, 1e-9),
        seconds=trained.clock.seconds,
        world_size=world.size,
        seed=recipe.train.seed,
        recipe=recipe.name,
        weights_sha256=weights_sha256(read_tensors(trained.checkpoint, "model")),
        **faults,
        checkpoint=trained.checkpoint.name,
        strategy=strategy_name(recipe.train, world),
        sessions=trained.sessions,
    )
    run.write_summary(summary)
    return summary


def headline(
    recipe: Recipe, data: ImageData, run: RunDirectory, world: World, checkpoint: Path | None
) -> str:
    """The first line of a run: recipe, images, epochs, processes and run directory."""
    processes = "1 process" if world.size == 1 else f"{world.size} processes"
    if world.is_launched or recipe.train.strategy != "auto":
        processes = f"{strategy_name(recipe.train, world)} over {processes}"
    begin = f"resuming {checkpoint.name}" if checkpoint else "new run"
    return (
        f"{recipe.name}: {len(data.train)} training and {len(data.test)} test images, "
        f"{recipe.schedule.epochs} epochs, {processes} on {world.device_type}; {begin} in {run.path}"
    )


def say_on_first(world: World, line: str) -> None:
    """Prints a line on stdout, on the first rank only."""
    if world.is_first:
        say(line)
