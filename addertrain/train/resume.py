"""Where a run starts: from nothing, from a checkpoint, or not at all if it has finished. Changes no file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from addertrain.checkpoint.files import verify_checkpoint
from addertrain.checkpoint.store import locate_checkpoint, step_of
from addertrain.recipe import Recipe
from addertrain.train.errors import UsageError
from addertrain.train.recipe_record import differing_keys, recipe_from_record
from addertrain.train.run_directory import RunDirectory, Summary


@dataclass(frozen=True)
class Start:
    """The checkpoint to start from (None: new weights), or the summary of a run with nothing left to do."""

    checkpoint: Path | None = None
    summary: Summary | None = None


def choose_start(recipe: Recipe, run: RunDirectory, resume: str, warn: Callable[[str], None]) -> Start:
    """Decides for `fit`.

    Args:
        resume: "auto": the newest whole checkpoint of the run directory, if any; "none": a new run, only
            where there is none yet; anything else: the path of a checkpoint or of a run directory.
        warn: is told in one line when a damaged checkpoint is passed over.

    Raises:
        UsageError: the run directory holds another run, or one that this would overwrite.
        CheckpointError: no checkpoint can be used.
    """
    if run.path.exists() and not run.path.is_dir():
        raise UsageError(f"{run.path}: expected a folder for the run, got a file; choose another --out")
    if resume == "none":
        if run.is_started:
            raise UsageError(
                f"{run.path}: holds a run already, and --resume none would overwrite it; "
                "choose another --out, or remove the folder"
            )
        return Start()
    if (earlier := run.read_recipe()) is not None:
        _check_same(recipe, earlier, where=str(run.path))
    if resume != "auto":
        return Start(checkpoint=_named_checkpoint(recipe, run, Path(resume), warn))
    if (summary := run.read_summary()) is not None:
        return Start(summary=summary)
    return Start(checkpoint=run.store.newest_whole(warn))


def _named_checkpoint(recipe: Recipe, run: RunDirectory, path: Path, warn: Callable[[str], None]) -> Path:
    checkpoint = locate_checkpoint(path, warn)
    manifest = verify_checkpoint(checkpoint)
    if "averaged" in manifest:
        raise UsageError(
            f"{checkpoint}: holds averaged weights without momentum, from which no run goes on; start a new "
            f"one with --init-from {checkpoint}"
        )
    record = manifest.get("recipe")
    if record is not None:
        _check_same(recipe, recipe_from_record(record, source=str(checkpoint)), where=str(checkpoint))
    newer = [other.name for other in run.store.newest_first() if step_of(other) > step_of(checkpoint)]
    if newer or run.read_summary() is not None:
        raise UsageError(
            f"{run.path}: holds later results than {checkpoint.name} "
            f"({newer[0] if newer else 'a finished run'}); choose another --out to go on from there"
        )
    return checkpoint


def _check_same(recipe: Recipe, earlier: Recipe, *, where: str) -> None:
    if differences := differing_keys(recipe, earlier):
        raise UsageError(
            f"{where}: was trained with another recipe ({'; '.join(differences)}); "
            "choose another --out, or give the same values"
        )
