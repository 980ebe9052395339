"""Runs a module's forward by its followed graph while that is valid, otherwise by its own code."""

import functools
import importlib
import linecache
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from addertrain.nn.fusing.follow import Followed
from addertrain.nn.tracing import is_watched


class Program:
    """A graph as a function of a module and tensors, with the condition under which it equals the module's
    code.

    Args:
        followed: its graph, with chains replaced, and what the module's code read.
        bypassed: modules that it no longer calls.
    """

    def __init__(self, followed: Followed, bypassed: tuple[nn.Module, ...]) -> None:
        graph = followed.graph
        self.reads, self.children, self.bypassed = followed.reads, followed.children, bypassed
        self.num_inputs = sum(node.op == "placeholder" for node in graph.nodes)
        code = graph.python_code("self")
        self.source = code.src
        self.names = {
            name: _Imported(value.__name__) if isinstance(value, ModuleType) else value
            for name, value in code.globals.items()
        }
        self.run = _compiled(self.source, self.names)

    def holds(self) -> bool:
        """Whether the module's code would still do the same, and no hook waits for a call that is left
        out.
        """
        return (
            all(tuple(module._modules.values()) == held for module, held in self.children)
            and all(read.holds() for read in self.reads)
            and not is_watched(*self.bypassed)
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "run"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.run = _compiled(self.source, self.names)


@dataclass(frozen=True)
class _Imported:
    """A Python module by its name, which can be pickled."""

    name: str


def _compiled(source: str, names: dict[str, Any]) -> Callable[..., Any]:
    import_of = dict.fromkeys(("torch",), torch)
    del import_of
    scope: dict[str, Any] = {
        name: importlib.import_module(value.name) if isinstance(value, _Imported) else value
        for name, value in names.items()
    }
    file = f"<addertrain.nn.fuse {hash(source)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # for tracebacks
    exec(compile(source, file, "exec"), scope)
    function: FunctionType = scope["forward"]
    return function


def lay_on(module: nn.Module, programs: list[Program]) -> None:
    """Makes the module's forward run the first of `programs` that is valid, otherwise its class's own code.

    The module gets a subclass of its class with the same name, as torch's parametrisations and FSDP2 do it,
    so that copies of every kind, shallow ones too, run on what they hold themselves.
    """
    module._fused_programs = programs  # type: ignore[assignment]
    module.__class__ = _fused_class(own_class(module))


def take_off(module: nn.Module) -> None:
    """Restores the module's own class."""
    if _programs(module):
        module.__class__ = own_class(module)
        del module._fused_programs


def own_class(module: nn.Module) -> type[nn.Module]:
    """The class that a user gave the module."""
    return vars(type(module)).get("_own_class", type(module))


def program_for(module: nn.Module, args: tuple[Any, ...]) -> Program | None:
    """The program that runs on these arguments instead of the module's own code, or None."""
    if torch.compiler.is_compiling() or not all(isinstance(arg, Tensor) for arg in args):
        return None
    for program in _programs(module):
        if program.num_inputs == len(args) and program.holds():
            return program
    return None


def _programs(module: nn.Module) -> list[Program]:
    programs: list[Program] = vars(module).get("_fused_programs", [])
    return programs


_FUSED: dict[type[nn.Module], type[nn.Module]] = {}
"""By the class that they stand for: one for all of its modules."""


def _fused_class(own: type[nn.Module]) -> type[nn.Module]:
    if own not in _FUSED:
        _FUSED[own] = _subclass(own)
    return _FUSED[own]


def _subclass(own: type[nn.Module]) -> type[nn.Module]:
    @functools.wraps(own.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        program = None if kwargs else program_for(self, args)
        if program is None:
            return own.forward(self, *args, **kwargs)
        return program.run(self, *args)

    def __reduce_ex__(self: nn.Module, protocol: Any) -> Any:
        reduced: Any = own.__reduce_ex__(self, protocol)
        function, args, *rest = reduced
        if args == (fused,):  # how objects are made again unless their class says otherwise
            return _new, (own,), *rest
        return function, args, *rest

    same = {name: getattr(own, name) for name in ("__module__", "__qualname__", "__doc__")}
    members = {**same, "forward": forward, "__reduce_ex__": __reduce_ex__, "_own_class": own}
    fused: type[nn.Module] = type(own.__name__, (own,), members)
    return fused


def _new(own: type[nn.Module]) -> nn.Module:
    fused = _fused_class(own)
    module: nn.Module = fused.__new__(fused)
    return module
