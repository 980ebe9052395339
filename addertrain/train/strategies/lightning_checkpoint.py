"""Converts between Lightning's dictionary of a checkpoint and the contents of our checkpoints.

No other file knows the dictionary's keys and the state of torch's LambdaLR; `loop_state` knows how
Lightning's loops count. They were read in Lightning 2.6.6 and torch 2.14.1; tests compare them with the
installed versions.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import lightning
from lightning.pytorch import Trainer

from addertrain.train.callbacks.stateful import STATES
from addertrain.train.loop_state import Position, loader_of, loops_at, position_of
from addertrain.train.strategies.checkpoint_io import (
    AVERAGE,
    FOREIGN,
    MODEL,
    OPTIMIZER,
    POSITION,
    RANK_BUFFERS,
    STATE,
)
from addertrain.train.strategies.precision import named_scale, scaler_state

_MODEL, _OPTIMIZERS, _VERSION = "state_dict", "optimizer_states", "pytorch-lightning_version"
_LOOPS, _CALLBACKS, _SCHEDULERS = "loops", "callbacks", "lr_schedulers"
_REPEATED = ("epoch", "global_step", _VERSION)  # Lightning resumes from its loops, and so from our position
_LOADER, _SCHEDULE, _SCALE = "loader", "schedule", "loss_scale"


def model_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and buffers by name in Lightning's dictionary."""
    model: dict[str, Any] = checkpoint[_MODEL]
    return model


def optimizer_of(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """The one optimizer's state in Lightning's dictionary.

    Raises:
        ValueError: there are several optimizers.
    """
    return _only(checkpoint.get(_OPTIMIZERS, []), "optimizer")


def to_ours(checkpoint: Mapping[str, Any], trainer: Trainer) -> dict[str, Any]:
    """The contents to save of a `checkpoint` of `trainer`, by the keys of `checkpoint_io`; RANK_BUFFERS is
    missing.

    Raises:
        ValueError: the training has several optimizers or schedules.
    """
    rest = {key: value for key, value in checkpoint.items() if key not in _REPEATED}
    state = dict(rest.pop(STATES, {}))
    assert not state.keys() & {_LOADER, _SCHEDULE, _SCALE}, "a callback's state_name is taken"
    if (loader := loader_of(rest.pop(_LOOPS))) is not None:
        state[_LOADER] = loader
    if (scheduler := _only(rest.pop(_SCHEDULERS, []), "schedule")) is not None:
        state[_SCHEDULE] = named_schedule(scheduler)
    if (scaler := rest.pop(_precision_key(trainer), None)) is not None:
        state[_SCALE] = named_scale(scaler)
    optimizer = optimizer_of(rest)
    rest.pop(_OPTIMIZERS, None)
    ours = {MODEL: rest.pop(_MODEL), OPTIMIZER: optimizer}
    if AVERAGE in rest:
        ours[AVERAGE] = rest.pop(AVERAGE)
    callbacks = rest.pop(_CALLBACKS, {})
    foreign = {key: value for key, value in ((_CALLBACKS, callbacks), ("entries", rest)) if value}
    return {**ours, POSITION: asdict(position_of(trainer)), STATE: state, FOREIGN: foreign}


def to_lightning(ours: Mapping[str, Any], trainer: Trainer) -> dict[str, Any]:
    """The inverse of `to_ours`: the dictionary from which Lightning resumes or evaluates."""
    position, state, foreign = Position(**ours[POSITION]), ours[STATE], ours[FOREIGN]
    checkpoint: dict[str, Any] = {
        **foreign.get("entries", {}),
        "epoch": position.epoch,
        "global_step": position.global_step,
        _VERSION: lightning.__version__,
        _LOOPS: loops_at(position, state.get(_LOADER)),
        _CALLBACKS: foreign.get(_CALLBACKS, {}),
        STATES: state,
        _MODEL: ours[MODEL],
        _OPTIMIZERS: [] if ours[OPTIMIZER] is None else [ours[OPTIMIZER]],
        _SCHEDULERS: [scheduler_state(state[_SCHEDULE])] if _SCHEDULE in state else [],
        RANK_BUFFERS: ours[RANK_BUFFERS],
    }
    if AVERAGE in ours:
        checkpoint[AVERAGE] = ours[AVERAGE]
    if _SCALE in state:
        checkpoint[_precision_key(trainer)] = scaler_state(state[_SCALE])
    return checkpoint


def _precision_key(trainer: Trainer) -> str:
    """The key of a precision plugin's state, which in Lightning is the name of its class."""
    return type(trainer.precision_plugin).__qualname__


def _only(states: list[dict[str, Any]], what: str) -> dict[str, Any] | None:
    if len(states) > 1:
        raise ValueError(f"checkpoint: expected one {what}, got {len(states)}; train with one")
    return states[0] if states else None


def named_schedule(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """The number of steps in LambdaLR's state, and every parameter group's initial and current rate.

    Raises:
        ValueError: it is the state of another scheduler.
    """
    if "lr_lambdas" not in scheduler:
        raise ValueError(
            "checkpoint: expected the schedule of an AdderClassifier (a LambdaLR), got another one"
        )
    return {
        "step": scheduler["last_epoch"],
        "base_rates": scheduler["base_lrs"],
        "rates": scheduler["_last_lr"],
    }


def scheduler_state(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `named_schedule`; LambdaLR counts its construction as a step."""
    return {
        "base_lrs": schedule["base_rates"],
        "last_epoch": schedule["step"],
        "_step_count": schedule["step"] + 1,
        "_last_lr": schedule["rates"],
        "lr_lambdas": [None for _ in schedule["base_rates"]],
    }
