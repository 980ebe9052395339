"""Reads and writes YAML without the surprises of YAML 1.1.

Plain YAML readers take `off` for false, `5e-4` for text, `010` for 8, and accept duplicate keys. In a recipe,
words are text, numbers are decimal, and a key may occur only once.
"""

import dataclasses
import re
from collections.abc import Hashable
from typing import Any

import yaml

from addertrain.errors import RecipeError
from addertrain.recipe.settings import Recipe

# YAML 1.2's core schema: tag, what it looks like, the characters it can begin with.
_SCALARS = [
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
]


class _StrictLoader(yaml.SafeLoader):
    """Reads the core schema only, and refuses duplicate keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                problem = f"key '{name}' occurs twice, first on line {seen[name]}; keep one"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen[name] = key.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


class _StrictDumper(yaml.SafeDumper):
    """Quotes every text that this module's reader or a plain one would not read as text."""


for _tag, _pattern, _first in _SCALARS:
    for _class in (_StrictLoader, _StrictDumper):
        _class.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first)


def read_yaml(text: str, *, source: str) -> Any:
    """The value that `text` holds; `source` names it in the error."""
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise RecipeError(
            f"{source}: expected YAML, got an error on {where}: {error.problem or error.context}; correct "
            "that line"
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"{source}: expected YAML, got: {error}") from None


def recipe_to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML with every key written out; `load_recipe` reads the same recipe back."""
    tree = dataclasses.asdict(recipe)
    return yaml.dump(
        tree, Dumper=_StrictDumper, sort_keys=False, allow_unicode=True, default_flow_style=False
    )
