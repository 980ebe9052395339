"""How a command line is read: our own words, those of the recipe, and one-line complaints about both."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

from addertrain.errors import UsageError

EXIT_CODES = """exit codes:
  0 done   1 failed   2 bad usage or recipe   3 not reproduced
  75 saved after SIGTERM or SIGUSR1   130 interrupted by Ctrl-C   (75, 130: start again to resume)"""


class CommandParser(argparse.ArgumentParser):
    """Says what is wrong in one line; nothing is abbreviated, so that no option means another one later.

    Args:
        late_epilog: makes the end of the help where that is dear, when it is asked for.
        settings: argparse's own.
    """

    def __init__(self, *, late_epilog: Callable[[], str] | None = None, **settings: Any) -> None:
        super().__init__(
            **{"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **settings}
        )
        self._late_epilog = late_epilog

    def format_help(self) -> str:
        """The help, with the epilog that was put off."""
        if self._late_epilog is not None:
            self.epilog = self._late_epilog()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Raises a UsageError, which becomes one line and exit code 2."""
        raise UsageError(f"{self.prog}: {message}; see {self.prog} --help")


class Commands(Protocol):
    """Takes the parsers of the commands; argparse has no public name for it."""

    def add_parser(self, name: str, **settings: Any) -> CommandParser:
        """The parser of the command `name`, to be given its words."""


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of this command line, and those of the recipe: `--section.key value`, `--name=value`."""
    own: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name = word.partition("=")[0]
        if not (name.startswith("--") and ("." in name or name == "--name")):
            own.append(word)
            continue
        overrides.append(word)
        if "=" not in word and rest and not rest[0].startswith("--"):
            overrides.append(rest.pop(0))
    return own, overrides
