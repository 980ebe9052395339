"""Settings of Lightning's Trainer: explicit arguments, no notes for developers, and an unchanged Ctrl-C.

Lightning takes each argument that a caller leaves out from a variable `PL_TRAINER_<NAME>`, if there is one.
A variable in the shell could then decide how many images an evaluation reads. Its notes for developers on
devices, advertisements and advice are silenced.
"""

import inspect
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer

# Each is about something that this package has decided on purpose:
_NOISE = (
    # one process may use one core of many: the launcher decides
    r".*does not have many workers.*",
    # its successor copies rank 0's buffers at the start, and older torch lacks it
    r".*`broadcast_buffers` is deprecated.*",
    # the counts are summed over the ranks already
    r".*sync_dist=True.*",
    # Lightning against a newer torch
    r".*isinstance\(treespec, LeafSpec\).*",
    # a frozen teacher
    r".*in eval mode at the start of training.*",
    # a loss scaler leaves a step out while it looks for its scale
    r".*`lr_scheduler.step\(\)` before `optimizer.step\(\)`.*",
    # an evaluation needs no callback of the training
    r".*callbacks used to create the checkpoint need to be provided.*",
)


def silence_lightning() -> None:
    """Silences notes for developers; substantial warnings are still shown."""
    for name in (
        "lightning",
        "lightning.pytorch",
        "lightning.fabric",
        "lightning.pytorch.utilities.rank_zero",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    for pattern in _NOISE:
        warnings.filterwarnings("ignore", message=pattern)


def silence_profiler() -> None:
    """Keeps the profiler's notes on its own start and end off stderr; it reads this when it is first used."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")


@contextmanager
def interrupts_as_such(trainer: Trainer) -> Iterator[None]:
    """Raises KeyboardInterrupt on Ctrl-C, although Lightning would end the process."""
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def every_argument(**given: Any) -> dict[str, Any]:
    """The arguments in `given`, and the Trainer's own default for every other one that it has."""
    parameters = inspect.signature(Trainer).parameters
    assert given.keys() <= parameters.keys(), sorted(given.keys() - parameters.keys())
    return {name: parameter.default for name, parameter in parameters.items()} | given


@contextmanager
def without_slurm() -> Iterator[None]:
    """Hides from Lightning that the process belongs to a Slurm job, because the launcher defines the ranks.
    Lightning takes the job's tasks for ranks even under a launcher: it refuses to train in an allocation of
    several tasks, and looks for checkpoints of its own in the working folder.
    """
    tasks = os.environ.pop("SLURM_NTASKS", None)
    try:
        yield
    finally:
        if tasks is not None:
            os.environ["SLURM_NTASKS"] = tasks
