"""Every argument of Lightning's Trainer, given by name.

Lightning takes each argument that a caller leaves out from a variable `PL_TRAINER_<NAME>`, if there is one.
What another tool's users keep in their shells would then decide how many images an evaluation reads.
"""

import inspect
from typing import Any

from lightning.pytorch import Trainer


def every_argument(**given: Any) -> dict[str, Any]:
    """The arguments in `given`, and the Trainer's own default for every other one that it has."""
    parameters = inspect.signature(Trainer).parameters
    assert given.keys() <= parameters.keys(), sorted(given.keys() - parameters.keys())
    return {name: parameter.default for name, parameter in parameters.items()} | given
