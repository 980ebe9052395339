"""addertrain trains AdderNets, networks whose layers measure similarity by -sum|x - w|, at scale.

The names that a script needs most are available here, as in `addertrain.AdderConv2d`. Their modules, and
torch with them, are imported when the first of these names is used: `import addertrain` alone takes
milliseconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from addertrain.models import build_model
    from addertrain.nn import AdderConv2d, AdderLinear, BatchNorm2d, param_groups, recalibrated
    from addertrain.nn.convert import convert
    from addertrain.nn.fuse import fuse
    from addertrain.optim import AdderSGD

__version__ = "0.1.0"

__all__ = [
    "AdderConv2d",
    "AdderLinear",
    "AdderSGD",
    "BatchNorm2d",
    "build_model",
    "convert",
    "fuse",
    "param_groups",
    "recalibrated",
]

_HOMES = {"AdderSGD": "addertrain.optim", "build_model": "addertrain.models"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES.get(name, "addertrain.nn")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
