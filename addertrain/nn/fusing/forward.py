"""What stands on a module for its forward: a followed graph while it holds, else the module's own code."""

import importlib
import linecache
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Signature, signature
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from addertrain.nn.fusing.follow import Followed
from addertrain.nn.tracing import is_watched


class Program:
    """A graph as a function of a module and tensors, and for how long it is the module's own code.

    Args:
        followed: its graph, with chains replaced, and what the module's code read.
        bypassed: modules that it does not call any more.
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
        """Whether the module's code would do the same now, and nobody waits for a call that is left out."""
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


class FusedForward:
    """module.forward, by the first of `programs` that holds, or by the class's own code.

    It lies on the module as an attribute, so that the module keeps its class, its names and its hooks, and a
    deep copy or a pickle of the module takes it along.
    """

    def __init__(self, module: nn.Module, programs: list[Program]) -> None:
        self.module, self.programs = module, programs

    @property
    def __func__(self) -> Any:
        """As a method's: the code that this stands for."""
        return type(self.module).forward

    @property
    def __signature__(self) -> Signature:
        return signature(MethodType(type(self.module).forward, self.module))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        program = None if kwargs else self.program_for(args)
        if program is None:
            return type(self.module).forward(self.module, *args, **kwargs)
        return program.run(self.module, *args)

    def program_for(self, args: tuple[Any, ...]) -> Program | None:
        """The one that may run on these arguments now, if any."""
        if torch.compiler.is_compiling() or not all(isinstance(arg, Tensor) for arg in args):
            return None
        for program in self.programs:
            if program.num_inputs == len(args) and program.holds():
                return program
        return None
