"""Functions of a user's own that a recipe names: `package.module:function`, and their keyword arguments.

They are found by Python's import and nothing else: install the package, or name its folder in PYTHONPATH.
"""

import functools
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from addertrain.errors import RecipeError, RunError, nearest


def is_own(name: str) -> bool:
    """Whether `name` means a function of a user's own; names of this package hold no colon."""
    return ":" in name


def load_function(name: str) -> Callable[..., Any]:
    """The function "package.module:function" of this package, imported."""
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


@dataclass(frozen=True)
class OwnFunction:
    """What `key` of a recipe names, imported.

    Attributes:
        given: the keyword arguments that it gets from this package.
    """

    key: str
    name: str
    call: Callable[..., Any]
    given: tuple[str, ...]

    @classmethod
    def named(cls, key: str, name: str, *, given: Collection[str]) -> "OwnFunction":
        """Imports the function `name`, "package.module:function", which the recipe's `key` asks for.

        Raises:
            RecipeError: there is no such function, or its module raises while it is imported.
        """
        module_name, _, path = name.partition(":")
        advice = "install its package, or name the folder of its module in PYTHONPATH"
        try:
            found: Any = importlib.import_module(module_name)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if module_name.endswith(".py"):
                advice = f"name the module, not its file: {name.replace('.py:', ':', 1)}"
            raise RecipeError(
                f"{key}: expected to import {module_name} for {name}, got {reason}; {advice}"
            ) from error
        for part in path.split("."):
            if not hasattr(found, part):
                public = [each for each in dir(found) if each[0] != "_"]
                define = f"define it in {module_name}"
                if module_name == "__main__":
                    define = "that is the script which runs now; move the function into a module of its own"
                hint = nearest(part, public, otherwise=define)
                raise RecipeError(f"{key}: expected a function {path} in {module_name}, got none; {hint}")
            found = getattr(found, part)
        if not callable(found):
            raise RecipeError(
                f"{key}: expected a function as {name}, got {type(found).__name__}; name a function"
            )
        return cls(key, name, found, tuple(given))

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Holds `arguments` against the function's signature, without calling it.

        Raises:
            RecipeError: it takes no such argument, needs another one, or does not take what it gets from us.
        """
        try:
            parameters = inspect.signature(self.call).parameters.values()
        except ValueError:  # a builtin tells nobody
            return
        named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
        own = [each.name for each in named if each.name not in self.given]
        section = f"{self.key.partition('.')[0]}.args"
        for name in self.given:
            if not takes_any and name not in {each.name for each in named}:
                raise RecipeError(
                    f"{self.key}: expected a function that takes {', '.join(self.given)} by keyword, got "
                    f"{self.name}, which does not take {name}; add that argument, or **kwargs"
                )
        for name in arguments:
            if name in self.given:
                raise RecipeError(
                    f"{section}.{name}: expected another argument, got {name}, which addertrain passes "
                    "itself; leave it out"
                )
            if not takes_any and name not in own:
                known = f"it takes {', '.join(own)}" if own else "it takes none; leave it out"
                hint = nearest(name, own, otherwise=known)
                raise RecipeError(
                    f"{section}.{name}: expected an argument of {self.name}, got {name}; {hint}"
                )
        for each in named:
            if each.name in own and each.default is each.empty and each.name not in arguments:
                raise RecipeError(
                    f"{section}: expected {each.name}, which {self.name} needs, got nothing; add it there, "
                    f"or with --{section}.{each.name} VALUE"
                )

    def __call__(self, arguments: Mapping[str, Any], **given: Any) -> Any:
        """What the function returns for the recipe's `arguments` and what this package gives it.

        Raises:
            RecipeError: the arguments do not fit.
            RunError: the function raised something that is none of this package's errors.
        """
        self.check(arguments)
        try:
            return self.call(**given, **arguments)
        except (RecipeError, RunError):
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise RunError(
                f"{self.key}: expected {self.name} to return, got {reason}; --debug prints the traceback"
            ) from error

    def record(self) -> dict[str, Any]:
        """Where its code comes from; see `source_record`."""
        return source_record(self.key, self.name, self.call)


def source_record(part: str, name: str, code: Any) -> dict[str, Any]:
    """What a run records of a function or class: its module, distribution, version and source's SHA-256.

    The hash is that of the file that defines it; what that imports is not part of it. Distribution and
    version are None for a module that no installed package owns, the hash where there is no source file.
    """
    module = str(getattr(inspect.unwrap(code) if callable(code) else code, "__module__", None) or "")
    distribution, version = _owner(module.partition(".")[0])
    return {
        "part": part,
        "name": name,
        "module": module,
        "distribution": distribution,
        "version": version,
        "sha256": _source_sha256(module),
    }


@functools.cache
def _owner(package: str) -> tuple[str | None, str | None]:
    """Name and version of the installed distribution that holds a top-level package."""
    # Here: a recipe without such functions, and `--help`, need not wait for its import.
    from importlib import metadata

    owners = metadata.packages_distributions().get(package)
    return (owners[0], metadata.version(owners[0])) if owners else (None, None)


def _source_sha256(module: str) -> str | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return None
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return None
