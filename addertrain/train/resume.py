"""Decides where a run starts: from new weights, from a checkpoint, or not at all; and where it resumes
after a fault. Changes no file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from addertrain.checkpoint.files import read_manifest, read_tensors, verify_checkpoint
from addertrain.checkpoint.store import CheckpointStore, locate_checkpoint, step_of
from addertrain.errors import CheckpointError, GoBack, RunError, UsageError
from addertrain.recipe import Recipe
from addertrain.train.processes import on_first_rank
from addertrain.train.recipe_record import differing_keys, evaluation_keys, recipe_from_record
from addertrain.train.run_directory import RunDirectory, Summary
from addertrain.train.weights import weights_sha256

Result = TypeVar("Result")


@dataclass(frozen=True)
class Start:
    """The checkpoint to start from (None for new weights), or the summary of a finished run."""

    checkpoint: Path | None = None
    summary: Summary | None = None


def choose_start(recipe: Recipe, run: RunDirectory, resume: str, warn: Callable[[str], None]) -> Start:
    """Decides for `fit`.

    Args:
        resume: "auto": the newest intact checkpoint of the run directory, if any; "none": a new run, only if
            there is none yet; otherwise the path of a checkpoint or of a run directory.
        warn: receives one line if a damaged checkpoint is skipped.

    Raises:
        UsageError: the run directory holds another run, or one that would be overwritten.
        CheckpointError: no checkpoint is usable.
    """
    if run.path.exists() and not run.path.is_dir():
        raise UsageError(f"{run.path}: expected a folder for the run, got a file; choose another --out")
    _check_text(run.path)
    run.check_names_are_free()
    if resume == "none":
        if run.is_bound:
            raise UsageError(
                f"{run.path}: expected a new run directory for --resume none, got one that holds a run; "
                "choose another --out, or remove the folder"
            )
        return Start()
    summary = run.read_summary()
    newest = _newest(run, warn, is_finished=summary is not None)
    earlier = _recipe_of(run, newest) if newest is not None or summary is not None else None
    if earlier is not None:
        _check_same(recipe, earlier, where=str(newest or run.path))
    if resume != "auto":
        return Start(checkpoint=_named_checkpoint(recipe, run, Path(resume), warn))
    if summary is None:
        return Start(checkpoint=newest)
    _check_summary(run, summary, newest, earlier)
    assert earlier is not None
    if different := evaluation_keys(recipe, run.read_recipe() or earlier):
        warn(f"{run.path}: this run is finished, so different settings are ignored ({'; '.join(different)})")
    return Start(summary=summary)


def _check_text(path: Path) -> None:
    """Refuses names that are not UTF-8, because event files are opened by their names in UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{path}: expected a name in UTF-8 for the run directory, got other bytes; choose another --out"
        ) from None


def _newest(run: RunDirectory, warn: Callable[[str], None], *, is_finished: bool) -> Path | None:
    """The newest intact checkpoint; for a finished run, damage is no error and gives None."""
    try:
        return run.store.newest_whole(warn)
    except CheckpointError:
        if is_finished:
            return None
        raise


def _recipe_of(run: RunDirectory, newest: Path | None) -> Recipe | None:
    """The recipe of the run: that of its checkpoint, or else its recipe.yaml."""
    record = read_manifest(newest).get("recipe") if newest is not None else None
    return run.read_recipe() if record is None else recipe_from_record(record, source=str(newest))


def _check_summary(run: RunDirectory, summary: Summary, newest: Path | None, earlier: Recipe | None) -> None:
    """Raises a RunError if summary.json may be of another run than the one in this folder."""
    file = run.path / "summary.json"
    if earlier is None:
        raise RunError(
            f"{file}: expected recipe.yaml or a checkpoint in the same folder, got neither; remove the "
            "file, or choose another --out"
        )
    if newest is None or (summary.checkpoint and newest.name != summary.checkpoint):
        return
    if weights_sha256(read_tensors(newest, "model")) != summary.weights_sha256:
        raise RunError(
            f"{file}: expected the result of {newest.name}, got that of other weights; remove the file, and "
            "the same command evaluates the checkpoint"
        )


def _named_checkpoint(recipe: Recipe, run: RunDirectory, path: Path, warn: Callable[[str], None]) -> Path:
    checkpoint = locate_checkpoint(path, warn)
    manifest = verify_checkpoint(checkpoint)
    if "averaged" in manifest:
        raise UsageError(
            f"{checkpoint}: expected a checkpoint of a run to resume, got averaged weights without "
            f"momentum; start a new run with --init-from {checkpoint}"
        )
    record = manifest.get("recipe")
    if record is not None:
        _check_same(recipe, recipe_from_record(record, source=str(checkpoint)), where=str(checkpoint))
    is_elsewhere = checkpoint.resolve().parent != run.store.folder.resolve()
    if is_elsewhere and manifest.get("epoch", 0) >= recipe.schedule.epochs:
        raise UsageError(
            f"{checkpoint}: expected a checkpoint of an unfinished run, got the end of "
            f"{recipe.schedule.epochs} epochs; measure it with addertrain evaluate, or start a new run with "
            "--init-from"
        )
    newer = [other.name for other in run.store.newest_first() if step_of(other) > step_of(checkpoint)]
    if newer or run.read_summary() is not None:
        raise UsageError(
            f"{run.path}: expected no later results than {checkpoint.name}, got "
            f"{newer[0] if newer else 'a finished run'}; choose another --out to resume from there"
        )
    return checkpoint


def _check_same(recipe: Recipe, earlier: Recipe, *, where: str) -> None:
    if differences := differing_keys(recipe, earlier):
        raise UsageError(
            f"{where}: expected the recipe that it was trained with, got another "
            f"({'; '.join(differences)}); choose another --out, or use the same values; see "
            "docs/troubleshooting.md#resuming-is-refused"
        )


def with_rollbacks(
    train: Callable[[Path | None, int], Result],
    start: Path | None,
    store: CheckpointStore,
    warn: Callable[[str], None],
) -> Result:
    """Calls `train` until it ends without a rollback, and returns its result; every rank has to call it.

    Args:
        train: trains from a checkpoint (None for new weights); its second argument counts the rollbacks. The
            rest of the epoch has to come in another order for every count.
        start: the first one.
        warn: receives one line for every rollback, on the first rank.
    """
    checkpoint, rollbacks = start, 0
    while True:
        try:
            return train(checkpoint, rollbacks)
        except GoBack as fault:
            rollbacks, message = fault.rollbacks, str(fault)
        # Outside of the handler: the error holds on to the whole training that is left behind.
        on_first_rank(lambda message=message: warn(message))  # type: ignore[misc]
        checkpoint = on_first_rank(lambda: store.newest_whole(warn))
