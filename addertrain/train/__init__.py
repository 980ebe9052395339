"""Training runs: the step (`module`), the ranks (`strategies`), what goes along (`callbacks`), the `run`.

The only part of the package that knows Lightning. `run.fit` and `run.evaluate` do what the command line does;
for an own script around an own model take `AdderClassifier` and the callbacks that you want.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from addertrain.train.module import AdderClassifier

__all__ = ["AdderClassifier"]


def __getattr__(name: str) -> object:
    """AdderClassifier, and with it Lightning, only when asked for: the command line answers at once."""
    if name != "AdderClassifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from addertrain.train.module import AdderClassifier

    return AdderClassifier
