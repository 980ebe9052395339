"""Training runs: the step (`module`), the ranks (`strategies`), what goes along (`callbacks`), the `run`.

The only part of the package that knows Lightning. `run.fit` and `run.evaluate` do what the command line does;
a script around a model of your own takes what is named here, and `addertrain.data.DatasetLoader`.
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
    """What is named, and with it Lightning, only when asked for: the command line answers at once."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
