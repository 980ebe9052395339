"""Training runs: the step (`module`), the ranks (`strategies`), the `callbacks`, and the `run` itself.

No other part of the package imports Lightning. `run.fit` and `run.evaluate` do what the command line does; a
script with your own model uses the names below and `addertrain.data.DatasetLoader`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from addertrain.train.callbacks.evaluation import RecalibratedEvaluation
    from addertrain.train.callbacks.guard import FiniteGuard
    from addertrain.train.loaders import FirstBatches
    from addertrain.train.module import AdderClassifier

__all__ = ["AdderClassifier", "FiniteGuard", "FirstBatches", "RecalibratedEvaluation"]

_PLACES = {
    "AdderClassifier": "module",
    "FiniteGuard": "callbacks.guard",
    "FirstBatches": "loaders",
    "RecalibratedEvaluation": "callbacks.evaluation",
}


def __getattr__(name: str) -> object:
    """Imports a name, and with it Lightning, when it is first used, so that the command line answers at
    once.
    """
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
