"""What Lightning's Trainer would take from the environment, given by name or kept from it.

Lightning takes each argument that a caller leaves out from a variable `PL_TRAINER_<NAME>`, if there is one.
What another tool's users keep in their shells would then decide how many images an evaluation reads.
"""

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer


def every_argument(**given: Any) -> dict[str, Any]:
    """The arguments in `given`, and the Trainer's own default for every other one that it has."""
    parameters = inspect.signature(Trainer).parameters
    assert given.keys() <= parameters.keys(), sorted(given.keys() - parameters.keys())
    return {name: parameter.default for name, parameter in parameters.items()} | given


@contextmanager
def without_slurm() -> Iterator[None]:
    """Hides from Lightning that the process belongs to a Slurm job; which ranks there are the launcher says.

    Lightning takes the job's tasks for its ranks, also beside a launcher: it refuses to train in an
    allocation of several tasks, and looks for checkpoints of its own in the working folder.
    """
    tasks = os.environ.pop("SLURM_NTASKS", None)
    try:
        yield
    finally:
        if tasks is not None:
            os.environ["SLURM_NTASKS"] = tasks
