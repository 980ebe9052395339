"""Checks whether runs reproduce a recipe: compares their recipes, and evaluates their weights again."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from addertrain.checkpoint.files import read_manifest, read_tensors
from addertrain.checkpoint.store import locate_checkpoint
from addertrain.data import data_sha256, load_data
from addertrain.durable import write_text
from addertrain.errors import RunError, SavedAfterSignal, UsageError
from addertrain.recipe import ExpectedRecipe, Recipe
from addertrain.train.processes import joined_processes, on_first_rank
from addertrain.train.recipe_record import differing_keys, recipe_from_record
from addertrain.train.run import evaluate, fit
from addertrain.train.run_directory import RunDirectory
from addertrain.train.signals import SignalWatch
from addertrain.train.weights import weights_sha256

# A result may move by some images with the processor and the number of ranks that evaluate, not by more.
_SAME_TOP1 = 0.1


@dataclass(frozen=True)
class Trial:
    """One seed's run: its accuracy in percent, evaluated again, and the reason if it does not count."""

    run: str
    seed: int
    top1: float
    weights_sha256: str
    objection: str | None = None


@dataclass(frozen=True)
class Reproduction:
    """The expected and the measured accuracy, and the verdict."""

    recipe: str
    expected: float
    tolerance: float
    mean: float
    std: float
    trials: tuple[Trial, ...]
    data_sha256: str
    objections: tuple[str, ...]
    command: str

    @property
    def is_reproduced(self) -> bool:
        """Whether the mean is within the tolerance and there are no objections to the runs."""
        return not self.objections

    @property
    def result(self) -> str:
        """The mean and the standard deviation over seeds."""
        spread = f" ± {self.std:.2f}" if len(self.trials) > 1 else ""
        return f"{self.mean:.2f}{spread}"

    @property
    def markdown(self) -> str:
        """The line of a table: recipe, expected, measured, command."""
        seeds = f"{len(self.trials)} seed" + "s" * (len(self.trials) != 1)
        return (
            f"| {self.recipe} | {self.expected:.2f} ± {self.tolerance:.2f} | {self.result} ({seeds}) "
            f"| `{self.command}` |"
        )


def reproduce(recipe: Recipe, out: Path, *, num_seeds: int, command: str) -> Reproduction:
    """Trains `num_seeds` seeds from the recipe's own on, in folders of `out`, and checks them. Called again
    it resumes. Every rank of a launcher has to call it.

    Raises:
        SavedAfterSignal: SIGTERM or SIGUSR1 came, and the run in progress has been saved.
        UsageError: the recipe expects nothing, or fewer than one seed is asked for.
        RunError, DataError: one line that says what is wrong.
    """
    runs = train_seeds(recipe, out, num_seeds=num_seeds)
    return judge(recipe, runs, out=out, command=command)


def train_seeds(
    recipe: Recipe, out: Path, *, num_seeds: int, signals: SignalWatch | None = None
) -> list[Path]:
    """The first half of `reproduce`; returns the runs.

    Args:
        signals: the signals received so far, including those during start-up.
    """
    _check(recipe, num_seeds)
    runs = []
    with signals or SignalWatch() as watch:
        for seed in range(recipe.train.seed, recipe.train.seed + num_seeds):
            runs.append(out / f"seed_{seed}")
            fit(_with_seed(recipe, seed), runs[-1], signals=watch)
        if watch.received is not None:
            raise SavedAfterSignal(
                f"every seed is trained, but {watch.reason} ended the command before the verdict; the same "
                "command will check them"
            )
    return runs


def judge(recipe: Recipe, runs: Sequence[Path], *, out: Path, command: str) -> Reproduction:
    """Checks finished runs and writes `out`/reproduction.json.

    A run counts if its newest checkpoint was trained to the end by this recipe (any seed), and if its summary
    matches its weights. The mean has to be within the recipe's tolerance.

    Raises:
        UsageError: the recipe expects nothing, or there are no runs.
        RunError, DataError: a run or its data cannot be read.
    """
    expected = _check(recipe, len(runs))
    trials = tuple(_trial(recipe, run) for run in runs)
    fingerprint = data_sha256(load_data(recipe.data))
    top1s = [trial.top1 for trial in trials]
    mean = statistics.fmean(top1s)
    objections = [f"{trial.run}: {trial.objection}" for trial in trials if trial.objection]
    objections += _objections_together(recipe.expected, trials, fingerprint)
    if abs(mean - expected) > recipe.expected.tolerance + 1e-9:
        objections.append(
            f"top-1 {mean:.2f} % lies {abs(mean - expected):.2f} {'above' if mean > expected else 'below'} "
            f"the expected {expected:.2f} ± {recipe.expected.tolerance:.2f} %"
        )
    verdict = Reproduction(
        recipe.name, expected, recipe.expected.tolerance, mean,
        statistics.stdev(top1s) if len(top1s) > 1 else 0.0, trials, fingerprint, tuple(objections), command,
    )  # fmt: skip
    with joined_processes():
        on_first_rank(lambda: _write(verdict, out))
    return verdict


def _check(recipe: Recipe, num_runs: int) -> float:
    """The expected accuracy."""
    if recipe.expected.top1 is None:
        raise UsageError(
            f"{recipe.name}: expected a recipe with an expected accuracy, got expected.top1: null; train it "
            "with fit, or give --expected.top1 VALUE --expected.tolerance VALUE"
        )
    if num_runs < 1:
        raise UsageError(f"{recipe.name}: expected at least 1 seed or run to check, got {num_runs}")
    return recipe.expected.top1


def _with_seed(recipe: Recipe, seed: int) -> Recipe:
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, seed=seed))


def _trial(recipe: Recipe, path: Path) -> Trial:
    """Evaluates the run's weights as the recipe does, with the run's own seed, which also chooses images."""
    checkpoint = locate_checkpoint(path, lambda line: None)
    manifest = read_manifest(checkpoint)
    trained = recipe_from_record(manifest.get("recipe"), source=str(checkpoint))
    evaluation = evaluate(checkpoint, _with_seed(recipe, trained.train.seed))
    digest = weights_sha256(read_tensors(checkpoint, "model"))
    objection = _objection(recipe, trained, manifest["epoch"], path, digest, evaluation.top1)
    return Trial(str(path), trained.train.seed, evaluation.top1, digest, objection)


def _objection(
    recipe: Recipe, trained: Recipe, epoch: int, path: Path, digest: str, top1: float
) -> str | None:
    """Why the run does not count, or None."""
    if different := differing_keys(_with_seed(recipe, trained.train.seed), trained):
        return f"was trained by another recipe ({'; '.join(different[:3])})"
    if epoch < recipe.schedule.epochs:
        return f"stopped after {epoch} of {recipe.schedule.epochs} epochs"
    try:
        summary = RunDirectory(path).read_summary()
    except RunError as error:
        return str(error)
    if summary is None:
        return "has no summary.json; let fit finish it"
    if summary.weights_sha256 != digest:
        return "its summary.json was written for other weights than those of its newest checkpoint"
    if abs(summary.top1 - top1) > _SAME_TOP1:
        return f"its summary.json says {summary.top1:.2f} %, its weights give {top1:.2f} %"
    return None


def _objections_together(expected: ExpectedRecipe, trials: Sequence[Trial], fingerprint: str) -> list[str]:
    """The objections to the runs as a set, or to their data."""
    found = []
    if len({trial.weights_sha256 for trial in trials}) < len(trials):
        found.append("several runs hold the same weights; each has to be a seed of its own")
    wanted = expected.data_sha256
    if wanted is not None and wanted != fingerprint:
        found.append(f"the data are others than the recipe's: sha256 {fingerprint[:12]}, not {wanted[:12]}")
    return found


def _write(verdict: Reproduction, out: Path) -> None:
    plain = {
        **dataclasses.asdict(verdict),
        "is_reproduced": verdict.is_reproduced,
        "markdown": verdict.markdown,
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "reproduction.json", json.dumps(plain, indent=1) + "\n")
    except OSError as error:
        raise RunError(
            f"{out}: expected a folder that can be written, got: {error.strerror}; choose another --out"
        ) from None
