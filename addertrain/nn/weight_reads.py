"""Finds modules whose forward pass reads the weight of a layer inside instead of calling the layer.

Shifted-window attention multiplies by `self.qkv.weight` itself, and so does torch's encoder layer in
evaluation. Read from the source of `forward` and of the methods it uses, so it costs no example and runs
nothing; a layer that is used under another name is found at the first gradient (`groups`).
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator
from types import FunctionType

from torch import nn

_METADATA = frozenset(
    {
        "device",
        "dim",
        "dtype",
        "is_cuda",
        "is_meta",
        "layout",
        "ndim",
        "numel",
        "requires_grad",
        "shape",
        "size",
    }
)

Chain = tuple[str, ...]


def weight_reads(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Layers inside `module` whose weight it computes with, and how it reads it, as in "self.qkv.weight"."""
    pending: list[object] = [getattr(module.forward, "__func__", None)]
    seen: set[FunctionType] = set()
    while pending:
        method = pending.pop()
        if not isinstance(method, FunctionType) or method in seen:
            continue
        seen.add(method)
        own, inherited = _names(method)
        for chain in own:
            pending.append(getattr(type(module), chain[0], None))
            if holder := _whose_weight(module, chain):
                yield holder, ".".join(("self", *chain))
        pending.extend(vars(parent).get(name) for parent in type(module).__mro__ for name in inherited)


def _whose_weight(module: nn.Module, chain: Chain) -> nn.Module | None:
    """The module in `module` whose weight a chain of names reads, and not only the weight's kind or size."""
    holder: nn.Module | None = module
    for place, name in enumerate(chain):
        assert holder is not None
        if name == "weight" and place > 0:
            return None if _METADATA & {*chain[place + 1 : place + 2]} else holder
        holder = holder._modules.get(name)
        if holder is None:
            break
    return None


@functools.lru_cache(maxsize=1024)
def _names(method: FunctionType) -> tuple[tuple[Chain, ...], tuple[str, ...]]:
    """Names behind `self` in a method, self.qkv.weight as ("qkv", "weight"), and those behind `super()`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    except (OSError, SyntaxError, TypeError):  # written at run time, or in C
        return (), ()
    own_name = next(iter(inspect.signature(method).parameters), None)
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    inner = {id(node.value) for node in nodes}
    chains = (_chain(node, own_name) for node in nodes if id(node) not in inner)
    return tuple(filter(None, chains)), tuple(node.attr for node in nodes if _is_super(node.value))


def _chain(node: ast.expr, own_name: str | None) -> Chain:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return tuple(reversed(names)) if isinstance(node, ast.Name) and node.id == own_name else ()


def _is_super(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
