"""What a user hands to `fit` beside a recipe: Lightning callbacks and loggers, checked before a run."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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

from addertrain.errors import UsageError
from addertrain.recipe import Recipe
from addertrain.train.processes import World
from addertrain.train.recipe_record import recipe_to_record

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
    """The callbacks and loggers of one call of `fit`."""

    callbacks: tuple[Callback, ...] = ()
    loggers: tuple[Logger, ...] = ()

    @classmethod
    def checked(cls, callbacks: Iterable[Callback], loggers: Iterable[Logger]) -> "OwnParts":
        """Refuses what a run cannot use.

        Raises:
            UsageError: something is no callback or no logger, or does what a recipe's key does.
        """
        own = cls(
            _all_of(Callback, "callbacks", callbacks),
            _all_of(Logger, "loggers", loggers),  # type: ignore[type-abstract]
        )
        for callback in own.callbacks:
            for kind, advice in _REFUSED:
                if isinstance(callback, kind):
                    raise UsageError(f"fit: expected no {type(callback).__name__} among callbacks: {advice}")
        return own

    def between(self, acting: Sequence[Callback], saving: Sequence[Callback]) -> list[Callback]:
        """All callbacks of a training in their order: those that act on a step, these, those that save.

        Raises:
            UsageError: two callbacks that keep a state have one `state_key`.
        """
        callbacks = [*acting, *self.callbacks, *saving]
        _check_state_keys(callbacks)
        return callbacks

    def logging(self, recipe: Recipe, world: World, *, every_steps: int) -> dict[str, Any]:
        """The Trainer's arguments: loggers that know the recipe on the first rank, silent ones elsewhere."""
        if not self.loggers:
            return {"logger": False}  # None would make the Trainer open a logger of its own
        # Callbacks such as LearningRateMonitor ask for a logger on every rank.
        loggers = self.loggers if world.is_first else tuple(DummyLogger() for _ in self.loggers)
        for logger in loggers:
            logger.log_hyperparams(recipe_to_record(recipe))
        return {"logger": list(loggers), "log_every_n_steps": every_steps}


def _check_state_keys(callbacks: Sequence[Callback]) -> None:
    counts = Counter(callback.state_key for callback in callbacks if _keeps_state(callback))
    for key, count in counts.items():
        if count > 1:
            raise UsageError(
                f"fit: expected a state_key of its own for every callback that keeps a state, got {key!r} "
                f"{count} times; override the property state_key, or name the class otherwise"
            )


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
    raise UsageError(
        f"fit: expected {name} as a list of lightning.pytorch {kind.__name__} objects, got "
        f"{type(wrong[0]).__name__}"
    )
