"""Reads a recipe from a YAML file and overrides; refuses unknown and missing keys and wrong types."""

import dataclasses
import difflib
import functools
import re
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from addertrain.errors import RecipeError, nearest
from addertrain.recipe.checks import check_recipe
from addertrain.recipe.keys import FORMER_KEYS, Key, did_you_mean, expected_value, known_keys, sections
from addertrain.recipe.overrides import Entries, read_overrides
from addertrain.recipe.settings import Recipe
from addertrain.recipe.yaml_text import read_yaml

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

# Recipes that were renamed, by the old names of their files.
_FORMER_NAMES = {
    "resnet20_better": "resnet20_8epochs_nag_eta05",
    "resnet8_better": "resnet8_4epochs_nag_eta05",
}
# A function of a user's own: package.module:function.
_OWN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and checks it.

    Args:
        path: the YAML file.
        overrides: command-line arguments, `["--optim.lr", "0.05", "--train.seed=1"]`, which override the
            file.

    Raises:
        RecipeError: one line that says what was expected, what came and what to do.
    """
    return parse_recipe(_read_text(Path(path)), source=str(path), overrides=overrides)


def parse_recipe(text: str, *, source: str, overrides: Sequence[str] = ()) -> Recipe:
    """As `load_recipe`, from the text of a recipe; `source` names it in errors."""
    given = {dotted: (value, f"{source}: {dotted}") for dotted, value in _read_tree(text, source).items()}
    for dotted, value in read_overrides(overrides).items():
        given[dotted] = (_with(given.get(dotted), value, source=source), f"--{dotted}")
    values: dict[str, Any] = {}
    for dotted, key in known_keys().items():
        if dotted in given:
            values[dotted] = _typed(key, *given[dotted])
        elif key.default is not dataclasses.MISSING:
            values[dotted] = key.default
        else:
            raise RecipeError(
                f"{source}: expected {dotted}, got nothing; add it as {expected_value(key)} ({key.summary})"
            )
    recipe = _build(values)
    check_recipe(recipe, source=source)
    return recipe


def _read_tree(text: str, source: str) -> dict[str, Any]:
    """The values by dotted name; every name is known, no value is checked yet."""
    tree = read_yaml(text, source=source)
    if tree is None:
        raise RecipeError(
            f"{source}: expected a recipe, got an empty file; write name and the sections "
            f"{', '.join(sections())}"
        )
    values: dict[str, Any] = {}
    for name, value in _mapping(tree, where=source).items():
        inside = {name: value}
        if name in sections():
            section = _mapping(value, where=f"{source}: {name}")
            named = {f"{name}.{key}": inner for key, inner in section.items()}
            inside = {FORMER_KEYS.get(key, key): inner for key, inner in named.items()}
        if twice := sorted(values.keys() & inside.keys()):
            raise RecipeError(
                f"{source}: expected {twice[0]} once, got it inside its section and as a dotted key; keep one"
            )
        values |= inside
    for dotted in values:
        if dotted not in known_keys():
            raise RecipeError(f"{source}: expected a known key, got '{dotted}'; {did_you_mean(dotted)}")
    return values


def _with(given: tuple[Any, str] | None, value: Any, *, source: str) -> Any:
    """An override's value, or the mapping with the overridden entries."""
    if not isinstance(value, Entries):
        return value
    before, where = given or ({}, source)
    return {**_mapping({} if before is None else before, where=where), **value}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RecipeError(f"{path}: expected a recipe file, got none; {_nearest_recipe(path)}") from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: expected a recipe file, got a folder; name a .yaml file in it") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: expected YAML in UTF-8, got other bytes; save it as UTF-8 text") from None
    except OSError as error:
        raise RecipeError(
            f"{path}: expected a readable recipe file, got: {error.strerror}; check its permissions"
        ) from None


def _nearest_recipe(missing: Path) -> str:
    """What to do about a missing file: its new name, or the most similar recipe in its folder or under
    ./recipes.
    """
    if missing.stem in _FORMER_NAMES:
        return f"it is called {missing.with_stem(_FORMER_NAMES[missing.stem])} now"
    folders = [missing.parent, missing.parent.parent / "recipes", Path("recipes")]
    found = {
        str(file): None
        for folder in folders
        for depth in ("*.yaml", "*/*.yaml")
        for file in folder.glob(depth)
    }
    known = f"there are: {', '.join(sorted(found)[:8])}" if found else "check the path"
    return nearest(str(missing), found, otherwise=known)


def _mapping(value: Any, *, where: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return {str(key): inner for key, inner in value.items()}
    got = "nothing" if value is None else f"{value!r:.40}"
    raise RecipeError(
        f"{where}: expected keys with values ('key: value' lines), got {got}; copy the layout of a file in "
        "recipes/"
    )


def _typed(key: Key, value: Any, where: str) -> Any:
    """The value with the key's type, checked by jsonargparse; a number in quotes is text, not a number."""
    section, _, name = key.dotted.rpartition(".")
    if key.is_mapping:
        return {} if value is None else _plain(_mapping(value, where=where), where=where)
    if key.names and isinstance(value, str) and (_OWN.fullmatch(value) or value in key.names):
        return value
    try:
        if key.names:
            raise TypeError
        if (isinstance(value, str) and not key.takes_text) or (value is None and not key.takes_null):
            raise TypeError  # jsonargparse would read the text as a number, and let null pass for any type
        tree = {section: {name: value}} if section else {name: value}
        return _parser().parse_object(tree, defaults=False)[key.dotted]
    except (ArgumentError, TypeError):
        got = "nothing" if value is None else f"{value!r:.60}"
        near = difflib.get_close_matches(str(value), key.choices, n=1)
        if key.names and not near and isinstance(value, str) and "." in value:
            near = [":".join(value.rsplit(".", 1))]
        advice = f"did you mean {near[0]}?" if near else f"change it ({key.summary})"
        raise RecipeError(f"{where}: expected {expected_value(key)}, got {got}; {advice}") from None


def _plain(value: Any, *, where: str) -> Any:
    """`value`, if it consists of numbers, strings, lists and mappings only."""
    if isinstance(value, Mapping):
        return {name: _plain(inner, where=f"{where}.{name}") for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, where=where) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise RecipeError(f"{where}: expected numbers, words, lists or names with values, got {value!r:.60}")


@functools.cache
def _parser() -> "ArgumentParser":
    """A parser that knows the type of every key; missing keys are handled above."""
    # Here: no key's type is judged for `fit --help` or for a mistyped name, and this import takes 0.2 s.
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False, add_help=False)
    for key in known_keys().values():
        parser.add_argument(f"--{key.dotted}", type=key.hint)
    return parser


def _build(values: Mapping[str, Any]) -> Recipe:
    parts: dict[str, Any] = {dotted: value for dotted, value in values.items() if "." not in dotted}
    for section, settings in sections().items():
        prefix = f"{section}."
        parts[section] = settings(
            **{
                dotted.removeprefix(prefix): value
                for dotted, value in values.items()
                if dotted.startswith(prefix)
            }
        )
    return Recipe(**parts)
