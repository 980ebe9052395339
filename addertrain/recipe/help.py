"""The help on a recipe's keys: one block of text for each section, wrapped to the width that is asked for."""

from dataclasses import MISSING

from addertrain.command_parser import wrapped
from addertrain.errors import UsageError
from addertrain.recipe.keys import Key, known_keys, sections
from addertrain.recipe.settings import Recipe

_INDENT = "      "


def recipe_help(section: str | None = None, *, width: int = 100) -> str:
    """What every key means, which values it takes and what its default is.

    Args:
        section: the only section to show, such as "optim"; None shows them all.
        width: columns of a line.

    Raises:
        UsageError: there is no such section.
    """
    if section is not None and section not in sections():
        raise UsageError(f"expected a section of a recipe ({', '.join(sections())}), got '{section}'")
    names = [None, *sections()] if section is None else [section]
    return "\n\n".join(_section_help(name, width=width) for name in names)


def _section_help(section: str | None, *, width: int) -> str:
    settings = Recipe if section is None else sections()[section]
    title, _, sentence = (settings.__doc__ or " ").partition("\n")
    keys = [key for dotted, key in known_keys().items() if dotted.rpartition(".")[0] == (section or "")]
    title = title.rstrip(".")
    head = [f"{section}: {title[0].lower()}{title[1:]}" if section else title]
    lines = [*wrapped(" ".join(sentence.split()), width=width, indent="  "), ""]
    for key in keys:
        lines += _key_help(key, width=width)
    return "\n".join([*head, *lines])


def _key_help(key: Key, *, width: int) -> list[str]:
    default = "required" if key.default is MISSING else f"default: {_as_yaml(key.default)}"
    choices = "|".join(key.choices)
    meaning = key.meaning
    head = f"  --{key.dotted} {choices or _kind(key)}  ({default})"
    if key.names or len(head) > width:
        own = ", or package.module:function" if key.names else ""
        meaning = f"{meaning} One of {', '.join(key.choices)}{own}."
        head = f"  --{key.dotted} NAME  ({default})"
    return [head, *wrapped(meaning, width=width, indent=_INDENT)]


def _kind(key: Key) -> str:
    """The word that stands for a value."""
    if key.is_mapping:
        return "{NAME: VALUE}"
    hints = [hint for hint in key.types if hint is not type(None)]
    word = {bool: "true|false", int: "INTEGER", float: "NUMBER", str: "TEXT"}[hints[0]]
    return f"{word}|null" if key.takes_null else word


def _as_yaml(value: object) -> str:
    """A default as YAML would write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'
