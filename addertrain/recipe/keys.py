"""The list of keys that the settings define: their dotted names, types, defaults and meanings."""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any, Literal

from addertrain.recipe.settings import Recipe


@dataclass(frozen=True)
class Key:
    """One key; `default` is `dataclasses.MISSING` if the recipe has to give it.

    `names` are the known names of a key that also takes a function of your own.
    """

    dotted: str
    hint: Any
    meaning: str
    default: Any
    names: tuple[str, ...] = ()

    @property
    def choices(self) -> tuple[str, ...]:
        """The names that the key knows; () for a key of another type."""
        return typing.get_args(self.hint) if typing.get_origin(self.hint) is Literal else self.names

    @property
    def summary(self) -> str:
        """The first sentence of the meaning, to be put into a message of one line."""
        sentence = self.meaning.partition(". ")[0].rstrip(".")
        return sentence[0].lower() + sentence[1:]

    @property
    def types(self) -> tuple[Any, ...]:
        """The types of its values, one of which may be that of None."""
        return typing.get_args(self.hint) or (self.hint,)

    @property
    def is_mapping(self) -> bool:
        """Whether the key holds names and values of your own choice."""
        return typing.get_origin(self.hint) is Mapping

    @property
    def takes_text(self) -> bool:
        """Whether a word is a value of this key as it is."""
        return bool(self.choices) or (not self.is_mapping and str in self.types)

    @property
    def takes_null(self) -> bool:
        """Whether the key may be null."""
        return types.NoneType in typing.get_args(self.hint)


@functools.cache
def sections() -> dict[str, type[Any]]:
    """The sections of a recipe, by name, in the order of the settings."""
    hints: dict[str, Any] = typing.get_type_hints(Recipe)
    return {name: hint for name, hint in hints.items() if hasattr(hint, "__dataclass_fields__")}


FORMER_KEYS = {"train.evaluate_stale": "train.evaluate_uncalibrated"}
"""Keys that were renamed, by their old names, which files and checkpoints of old runs still have."""


@functools.cache
def known_keys() -> dict[str, Key]:
    """Every key by its dotted name, in the order of the settings."""
    keys = _keys_of(Recipe, prefix="")
    for section, settings in sections().items():
        keys |= _keys_of(settings, prefix=f"{section}.")
    return keys


def _keys_of(settings: type[Any], *, prefix: str) -> dict[str, Key]:
    hints = typing.get_type_hints(settings, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(settings)}
    return {
        prefix + name: Key(
            prefix + name,
            hint.__origin__,
            hint.__metadata__[0],
            _default(fields[name]),
            hint.__metadata__[1].names if len(hint.__metadata__) > 1 else (),
        )
        for name, hint in hints.items()
        if hasattr(hint, "__metadata__")
    }


def _default(field: "dataclasses.Field[Any]") -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def did_you_mean(unknown: str) -> str:
    """The end of a message about an unknown key: the nearest known one, or the list of what is known."""
    if unknown in FORMER_KEYS:
        return f"it is called '{FORMER_KEYS[unknown]}' now"
    section, _, leaf = unknown.rpartition(".")
    inside = {_leaf(dotted): dotted for dotted in known_keys() if dotted.startswith(f"{section}.")}
    anywhere = {_leaf(dotted): dotted for dotted in reversed(known_keys())}
    mappings = [dotted for dotted, key in known_keys().items() if key.is_mapping]
    if near := difflib.get_close_matches(section, mappings, n=1):  # an entry of a misspelt one
        return f"did you mean '{near[0]}.{leaf}'?"
    if leaf in anywhere:  # the right word in the wrong place
        return f"did you mean '{anywhere[leaf]}'?"
    for names in (inside, {name: name for name in sections()}, anywhere):
        if near := difflib.get_close_matches(leaf, names, n=1):
            return f"did you mean '{names[near[0]]}'?"
    return f"known are: {', '.join(inside.values() or ['name', *sections()])}"


def _leaf(dotted: str) -> str:
    return dotted.rpartition(".")[2]


def expected_value(key: Key) -> str:
    """What a key's value has to be, in words."""
    if key.choices:
        own = ", or package.module:function" if key.names else ""
        return f"one of {', '.join(key.choices)}{own}"
    if key.is_mapping:
        return "names with values"
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        types.NoneType: "null",
    }
    return " or ".join(words[hint] for hint in key.types)
