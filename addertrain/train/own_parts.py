"""Your own parts of a run: functions that its recipe names, and Lightning callbacks and loggers.

All of it is checked before a run begins and recorded with it: modules, versions and hashes of source files.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Checkpoint,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ProgressBar,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger

from addertrain.checkpoint.files import read_manifest
from addertrain.errors import UsageError
from addertrain.own_code import OwnFunction, source_record
from addertrain.recipe import Recipe
from addertrain.train.building import own_functions
from addertrain.train.processes import World
from addertrain.train.recipe_record import recipe_to_record
from addertrain.train.session import OWN_CODE, SESSIONS
from addertrain.train.strategies.checkpoint_io import check_plain
from addertrain.train.strategies.plain_values import to_plain

_Kind = TypeVar("_Kind")
_REFUSED: tuple[tuple[type[Callback], str], ...] = (
    (Checkpoint, "fit saves checkpoints itself; set train.save_every_steps and train.keep_checkpoints"),
    (ProgressBar, "fit reports progress itself; leave it out"),
    (GradientAccumulationScheduler, "set train.accumulate"),
    (StochasticWeightAveraging, "set train.ema_decay"),
    (WeightAveraging, "set train.ema_decay"),
    (BatchSizeFinder, "set data.global_batch_size and train.accumulate; `addertrain plan` says what fits"),
    (LearningRateFinder, "use it in a Trainer of your own, and set optim.lr"),
)


@dataclass(frozen=True)
class OwnParts:
    """The callbacks and loggers of one call of `fit`, and the functions that its recipe names."""

    callbacks: tuple[Callback, ...] = ()
    loggers: tuple[Logger, ...] = ()
    functions: tuple[OwnFunction, ...] = ()
    first_states: tuple[dict[str, Any], ...] = ()
    """Of the callbacks, as they were handed over."""

    @classmethod
    def checked(
        cls, recipe: Recipe, callbacks: Iterable[Callback] = (), loggers: Iterable[Logger] = ()
    ) -> "OwnParts":
        """Refuses what a run cannot use.

        Raises:
            UsageError: something is not a callback or logger, does what a recipe's key does, or has a state
                that a checkpoint cannot hold.
            RunError, RecipeError: a function cannot be imported, or does not take its arguments.
        """
        own = cls(
            _all_of(Callback, "callbacks", callbacks),
            _all_of(Logger, "loggers", loggers),  # type: ignore[type-abstract]
            tuple(own_functions(recipe)),
        )
        for callback in own.callbacks:
            _check_state(callback)
        own = replace(own, first_states=tuple(copy.deepcopy(each.state_dict()) for each in own.callbacks))
        for callback in own.callbacks:
            for kind, advice in _REFUSED:
                if isinstance(callback, kind):
                    raise UsageError(
                        f"fit: expected no {type(callback).__name__} in callbacks, got one; {advice}"
                    )
        return own

    def start_over(self) -> None:
        """Restores the initial states of the callbacks when a run rolls back to new weights."""
        for callback, state in zip(self.callbacks, self.first_states, strict=True):
            if _keeps_state(callback):
                callback.load_state_dict(copy.deepcopy(state))

    def records(self) -> list[dict[str, Any]]:
        """The record of each part; with the `state_key` of a callback that has a state."""
        found = [function.record() for function in self.functions]
        for callback in self.callbacks:
            key = callback.state_key if _keeps_state(callback) else None
            found.append({**_record_of("callback", callback), "state_key": key})
        found += [_record_of("logger", logger) for logger in self.loggers]
        return found

    def compare(self, checkpoint: Path | None, warn: Callable[[str], None]) -> None:
        """Warns of everything that has changed since the run wrote `checkpoint`, from which it resumes."""
        earlier = _recorded(checkpoint)
        _compare(checkpoint, earlier, self.records() if earlier else [], warn)
        kept = {callback.state_key for callback in self.callbacks}
        for record in earlier:
            if (key := record.get("state_key")) is not None and key not in kept:
                warn(
                    f"{checkpoint}: holds the state of {record['name']}, which is not in callbacks now, so "
                    "later checkpoints will not contain it"
                )

    def logging(self, recipe: Recipe, world: World, *, every_steps: int) -> dict[str, Any]:
        """The Trainer's arguments: loggers that know the recipe on the first rank, silent ones elsewhere."""
        if not self.loggers:
            return {"logger": False}  # None would make the Trainer open a logger of its own
        # Callbacks such as LearningRateMonitor ask for a logger on every rank.
        loggers = self.loggers if world.is_first else tuple(DummyLogger() for _ in self.loggers)
        for logger in loggers:
            logger.log_hyperparams(recipe_to_record(recipe))
        return {"logger": list(loggers), "log_every_n_steps": every_steps}


def compare_functions(recipe: Recipe, checkpoint: Path, warn: Callable[[str], None], *, named: Path) -> None:
    """Warns of every function of `recipe` that has changed since `checkpoint` was written.

    Args:
        named: the name of the checkpoint in messages, if its files are read under another name.
    """
    _compare(named, _recorded(checkpoint), [each.record() for each in own_functions(recipe)], warn)


def _compare(
    checkpoint: Path | None,
    earlier: Sequence[dict[str, Any]],
    records: Sequence[dict[str, Any]],
    warn: Callable[[str], None],
) -> None:
    now = {(record["part"], record["name"]): record["sha256"] for record in records}
    for record in earlier:
        part, name, there = record["part"], record["name"], record["sha256"]
        here = now.get((part, name), there)
        if here != there:
            warn(
                f"{checkpoint}: {part} {name}: its source file has changed (sha256 {str(there)[:12]} there, "
                f"{str(here)[:12]} here)"
            )


def _record_of(part: str, given: Callback | Logger) -> dict[str, Any]:
    kind = type(given)
    return source_record(part, f"{kind.__module__}:{kind.__qualname__}", kind)


def _recorded(checkpoint: Path | None) -> list[dict[str, Any]]:
    """The record of the last session that led to `checkpoint`."""
    sessions = read_manifest(checkpoint).get(SESSIONS) if checkpoint is not None else None
    return (sessions or [{}])[-1].get(OWN_CODE, [])


def check_state_keys(callbacks: Sequence[Callback]) -> None:
    """Checks whether a checkpoint can hold the states of `callbacks`.

    Raises:
        UsageError: two callbacks with a state have the same `state_key`.
    """
    counts = Counter(callback.state_key for callback in callbacks if _keeps_state(callback))
    for key, count in counts.items():
        if count > 1:
            raise UsageError(
                f"fit: expected a different state_key for every callback with a state, got {key!r} {count} "
                "times; override the property state_key, or rename the class"
            )


def _check_state(callback: Callback) -> None:
    """Checks before training, not at the first save, whether a checkpoint can hold the state."""
    try:
        check_plain(to_plain(callback.state_dict()), "state_dict()")
    except TypeError as error:
        raise UsageError(
            f"fit: {type(callback).__name__}: {error}; store arrays as tensors, and numpy numbers as .item()"
        ) from error


def _keeps_state(callback: Callback) -> bool:
    """Whether checkpoints hold a state of `callback`."""
    return type(callback).state_dict is not Callback.state_dict


def _all_of(kind: type[_Kind], name: str, given: Iterable[_Kind]) -> tuple[_Kind, ...]:
    if isinstance(given, Iterable):
        found = tuple(given)
        wrong = [each for each in found if not isinstance(each, kind)]
        if not wrong:
            return found
    else:
        wrong = [given]
    got = f"the class {wrong[0].__name__}" if isinstance(wrong[0], type) else type(wrong[0]).__name__
    advice = f"; call it: {wrong[0].__name__}(...)" if isinstance(wrong[0], type) else ""
    raise UsageError(
        f"fit: expected {name} as a list of lightning.pytorch {kind.__name__} objects, got {got}{advice}"
    )
