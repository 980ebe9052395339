"""Command-line overrides: `--section.key value` or `--section.key=value`."""

from collections.abc import Sequence
from typing import Any

from addertrain.errors import RecipeError
from addertrain.recipe.keys import did_you_mean, known_keys, sections
from addertrain.recipe.yaml_text import read_yaml


class Entries(dict[str, Any]):
    """Some entries of a key that holds a mapping; its other entries do not change."""


def read_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """The overridden values by dotted name, as YAML would have read them; the last of two equal keys wins.

    Raises:
        RecipeError: an unknown key, a key without a value, a value without a key.
    """
    overrides: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise RecipeError(
                f"expected an option --section.key VALUE, got '{word}'; write it with two hyphens in front, "
                "and its value directly behind"
            )
        dotted, equals, text = word[2:].partition("=")
        entry = _entry_of(dotted)
        if entry is None:
            _check_known(dotted)
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise RecipeError(f"--{dotted}: expected a value, got none; write --{dotted} VALUE")
            text = rest.pop(0)
        if entry is None:
            overrides[dotted] = _value(dotted, text)
        else:
            key, name = entry
            before = overrides.get(key)
            of_key = before if isinstance(before, dict) else Entries()
            of_key[name] = read_yaml(text, source=f"--{dotted}")
            overrides[key] = of_key
    return overrides


def _entry_of(dotted: str) -> tuple[str, str] | None:
    """("model.args", "width") of model.args.width; None for what is no entry of such a key."""
    key, _, name = dotted.rpartition(".")
    known = known_keys().get(key)
    return (key, name) if known is not None and known.is_mapping and name else None


def _check_known(dotted: str) -> None:
    if dotted in sections():
        raise RecipeError(
            f"--{dotted}: expected a key, got a section; name one of its keys, as in --{dotted}.KEY VALUE"
        )
    if dotted not in known_keys():
        raise RecipeError(f"expected a known key, got '--{dotted}'; {did_you_mean(dotted)}")


def _value(dotted: str, text: str) -> Any:
    """The text itself where the key takes text (`--name 2024` is a name), else what YAML makes of it."""
    key = known_keys()[dotted]
    if key.takes_text and not (key.takes_null and text == "null"):
        return text
    return read_yaml(text, source=f"--{dotted}")
