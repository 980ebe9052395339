"""Finds the modules of the original that a copied network still holds.

`copy.deepcopy` follows containers, objects, partials and methods, but not what a function has closed over,
its defaults, or weak references: there a copy still uses the original's layers.
"""

import functools
import weakref
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn


def references_to(originals: set[nn.Module], network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every place in `network`, as a path, that holds one of the modules `originals`."""
    seen: set[int] = set()
    pending: list[tuple[str, Any]] = [(name, module) for name, module in network.named_modules()]
    while pending:
        path, value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module) and value in originals:
            yield path, value
        else:
            pending.extend(_held_by(path, value))


def _held_by(path: str, value: Any) -> list[tuple[str, Any]]:
    """What `value` itself holds."""
    if isinstance(value, str | bytes | int | float | Tensor | type | None):
        return []
    if isinstance(value, dict):
        return [(f"{path}[{key!r}]", item) for key, item in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(path, item) for item in value]
    if isinstance(value, functools.partial):
        return [(path, item) for item in (value.func, value.args, value.keywords)]
    if isinstance(value, MethodType):
        return [(path, value.__func__), (path, value.__self__)]
    if isinstance(value, FunctionType):
        cells = [_content(cell) for cell in value.__closure__ or ()]
        return [(path, item) for item in (cells, value.__defaults__, value.__kwdefaults__)]
    if isinstance(value, weakref.ref):
        return [(path, value())]
    is_torchs = type(value).__module__.startswith("torch.") and not isinstance(value, nn.Module)
    attributes = {} if is_torchs else getattr(value, "__dict__", {})
    return [(f"{path}.{key}" if path else key, item) for key, item in attributes.items()]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not assigned yet
        return None
