"""Follows the code of one module's `forward` with torch.fx: its graph, and what the graph depends on.

Submodules are nodes, so that a module that cannot be followed does not affect those around it. torch.fx
raises where control flow depends on a tensor, but takes what Python knows at that moment for a constant:
attributes and flags. They are recorded here when they are read, and compared before every use of the graph.
Code that can be neither followed nor compared is refused: written attributes, randomness, numbers in a
module's globals, and tests of an input's type.
"""

import dis
import functools
import gc
import operator
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType, MethodType, ModuleType
from typing import Any, NoReturn

import torch
import torch.fx
from torch import Tensor, nn

_QUESTIONS = {
    "hasattr", "is_autocast_enabled", "is_compiling", "is_exporting", "is_fx_tracing", "is_grad_enabled",
    "is_inference_mode_enabled", "is_tensor", "is_tracing", "isinstance", "issubclass", "type",
}  # fmt: skip
"""Names of functions that answer otherwise while torch.fx traces, or whose answers are not compared."""
_OF_MODULES = frozenset({*dir(nn.Module), *vars(nn.Module())}) - {"training"}
_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device, torch.memory_format)


class NotFollowedError(Exception):
    """Why a module's code cannot be followed."""


@dataclass(frozen=True)
class Read:
    """An attribute that the code read, and its value."""

    module: nn.Module
    name: str
    value: Any

    def holds(self) -> bool:
        """Whether it would read the same value now."""
        value = getattr(self.module, self.name, _MISSING)
        if callable(self.value):
            return value is self.value
        return type(value) is type(self.value) and bool(value == self.value)


_MISSING = object()


@dataclass(frozen=True)
class Followed:
    """The graph of a module's code, valid for tensors while `reads` and `children` are what they were."""

    graph: torch.fx.Graph
    reads: tuple[Read, ...]
    children: tuple[tuple[nn.Module, tuple[nn.Module | None, ...]], ...]
    """The module, submodules that it looks into, and what they hold."""


def follow(module: nn.Module) -> list[Followed]:
    """The graph of the module's code, or two graphs (training, evaluation) if it reads `training`.

    Raises:
        NotFollowedError: with the reason.
    """
    _refuse_kind(module)
    modes = [(each, each.training) for each in module.modules()]
    try:
        first = _follow(module)
        if not any(read.name == "training" for read in first.reads):
            return [first]
        module.train(not module.training)
        return [first, _follow(module)]
    finally:
        for each, training in modes:
            each.training = training


def _refuse_kind(module: nn.Module) -> None:
    forward = getattr(type(module).forward, "__wrapped__", type(module).forward)
    is_torchs = type(module).__module__.startswith("torch.") and type(module) is not nn.Sequential
    if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule) or is_torchs:
        raise NotFollowedError("its forward is not Python code of its own class")
    if "forward" in vars(module):
        raise NotFollowedError("its forward is an attribute of the object, not of the class")
    code = getattr(forward, "__code__", None)
    if code is None or forward is not type(module).forward:
        raise NotFollowedError("its forward is decorated or not Python")
    if code.co_flags & 0x0C or code.co_kwonlyargcount or forward.__defaults__:
        raise NotFollowedError("it takes optional arguments")


def _follow(module: nn.Module) -> Followed:
    watch = _Watch(module)
    random_states = _RandomStates()
    tracer = _Tracer()
    try:
        with watch.watching():
            graph = tracer.trace(module)
    except NotFollowedError:
        raise
    except Exception as error:  # whatever its code does with stand-ins for tensors
        raise NotFollowedError(first_line(error)) from error
    finally:
        has_drawn = random_states.have_moved()
        random_states.restore()
    if watch.refusal is not None:  # an except of its own may have caught it
        raise NotFollowedError(watch.refusal)
    if has_drawn:
        raise NotFollowedError("it draws random numbers")
    looked_into = dict.fromkeys((*_containers(module), *_holders(module, graph)))
    children = tuple((each, tuple(each._modules.values())) for each in looked_into)
    return Followed(graph, tuple(watch.reads.values()), children)


def _containers(module: nn.Module) -> Iterator[nn.Module]:
    """The module and the lists in it, whose code may iterate."""
    yield module
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict | nn.Sequential):
            yield from _containers(child)


def _holders(module: nn.Module, graph: torch.fx.Graph) -> Iterator[nn.Module]:
    """Submodules past which the code reaches: self.stem of self.stem.relu(x)."""
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            *path, _ = str(node.target).split(".")
            yield from (module.get_submodule(".".join(path[: end + 1])) for end in range(len(path)))


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type if there is no message."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


class _RandomStates:
    """Python's, torch's and numpy's generators, if numpy is there."""

    def __init__(self) -> None:
        self.numpys = getattr(sys.modules.get("numpy"), "random", None)
        self.states = self._now()

    def _now(self) -> tuple[Any, Any, Any]:
        return random.getstate(), torch.get_rng_state(), self.numpys and self.numpys.get_state()

    def have_moved(self) -> bool:
        """Whether one of them has been used."""
        return repr(self._now()[::2]) != repr(self.states[::2]) or not torch.equal(
            self._now()[1], self.states[1]
        )

    def restore(self) -> None:
        """Restores the states."""
        random.setstate(self.states[0])
        torch.set_rng_state(self.states[1])
        if self.numpys:
            self.numpys.set_state(self.states[2])


class _Tracer(torch.fx.Tracer):
    """Submodules are leaves, buffers are read when the graph runs, and operations in place stay so."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def proxy(self, node: torch.fx.Node) -> torch.fx.Proxy:
        return _Proxy(node, self)


class _Proxy(torch.fx.Proxy):
    """torch.fx writes x += y down as x + y, as if nobody else read x."""


def _in_place(name: str) -> Any:
    function = getattr(operator, name)

    def method(self: _Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


for _name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor"):
    setattr(_Proxy, f"__{_name}__", _in_place(_name))


class _Watch:
    """Records what code reads from modules while it is traced, and refuses what cannot be compared later."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.reads: dict[tuple[int, str], Read] = {}
        self.refusal: str | None = None

    def refuse(self, reason: str) -> NoReturn:
        self.refusal = reason
        raise NotFollowedError(reason)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Patches torch's class, as torch.fx itself does for as long as it traces."""
        own_setattr, profile, collects = nn.Module.__setattr__, sys.getprofile(), gc.isenabled()
        thread = threading.get_ident()  # other threads may use modules meanwhile

        def get(module: nn.Module, name: str) -> Any:
            value = object.__getattribute__(module, name)
            if threading.get_ident() == thread and name not in _OF_MODULES and not name.startswith("__"):
                self._note(module, name, value)
            return value

        def set_(module: nn.Module, name: str, value: Any) -> None:
            if threading.get_ident() == thread:
                self.refuse(f"it writes self.{name}")
            own_setattr(module, name, value)

        nn.Module.__getattribute__ = get  # type: ignore[method-assign, assignment]
        nn.Module.__setattr__ = set_  # type: ignore[method-assign, assignment]
        gc.disable()  # what it ends would be taken for code that the module calls
        sys.setprofile(self._frame)
        try:
            yield
        finally:
            sys.setprofile(profile)
            nn.Module.__setattr__ = own_setattr  # type: ignore[method-assign]
            del nn.Module.__getattribute__
            if collects:
                gc.enable()

    def _note(self, module: nn.Module, name: str, value: Any) -> None:
        if isinstance(getattr(type(module), name, None), property):
            return  # what it reads is noted
        if isinstance(value, MethodType) and value.__self__ is module:
            return
        if isinstance(value, Tensor):
            return  # read again whenever the graph runs
        if not (_is_plain(value) or callable(value)):
            self.refuse(f"it reads self.{name}, a {type(value).__name__}")
        self.reads[id(module), name] = Read(module, name, value)

    def _frame(self, frame: FrameType, event: str, _: Any) -> None:
        """Looks at the names in the code of every function that is called but those of torch and Python."""
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if event != "call" or package in {"torch", "addertrain"} or package in sys.stdlib_module_names:
            return
        for name in frame.f_code.co_freevars:
            if isinstance(frame.f_locals.get(name), bool | int | float | str):
                self.refuse(f"it reads {name} of the function around it")
        for name in frame.f_code.co_names:
            if name in _QUESTIONS:
                self.refuse(f"it calls {name}")
        for name in _global_names(frame.f_code):
            value = frame.f_globals.get(name)
            if value is not None and not callable(value) and not isinstance(value, ModuleType):
                self.refuse(f"it reads {name}, which is neither its module's nor a function")


@functools.cache
def _global_names(code: CodeType) -> tuple[str, ...]:
    """The globals that code loads; `co_names` lists the attributes of its objects among them."""
    loads = (each for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    return tuple(dict.fromkeys(str(each.argval) for each in loads))


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)
