"""What the commands' parsers share: exit codes, help on a section of a recipe, and the recipe's own words."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from addertrain.command_parser import CommandParser, help_width

if TYPE_CHECKING:
    from addertrain.recipe import Recipe

EXIT_CODES = """exit codes:
  0     The command is done.
  1     It failed.
  2     The command line or the recipe is wrong.
  3     The result of the recipe was not reproduced.
  75    The run was saved after SIGTERM or SIGUSR1; the same command resumes it.
  130   Ctrl-C interrupted the run; the same command resumes it."""

KEYS_NOTE = """Every key of the recipe is also an option and overrides the file, for example --optim.lr 0.05.
--help SECTION explains the keys of a section: model, data, optim, schedule, train, distill or expected."""


class Commands(Protocol):
    """Takes the parsers of the commands; argparse has no public name for it."""

    def add_parser(self, name: str, **settings: Any) -> CommandParser:
        """The parser of the command `name`, to which its arguments are added."""


def add_command_with_keys(commands: Commands, name: str, **settings: Any) -> CommandParser:
    """The parser of a command that takes a recipe, and its keys as options; --help takes a section's name."""
    parser = commands.add_parser(name, add_help=False, recipe_keys=_recipe_keys, **settings)
    parser.add_argument(
        "-h",
        "--help",
        nargs="?",
        metavar="SECTION",
        action=_Help,
        help="show this help, or only the keys in one section of the recipe, and exit",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="the recipe, a YAML file such as those in recipes/")
    return parser


def add_run_directory(parser: CommandParser) -> None:
    """Adds the option that names the run directory; see `run_directory`."""
    parser.add_argument(
        "--out", metavar="DIR", help="the run directory (default: runs/ followed by the name of the recipe)"
    )


def run_directory(arguments: argparse.Namespace, recipe: "Recipe") -> Path:
    """The directory of a recipe's run."""
    return Path(arguments.out or Path("runs") / recipe.name)


class _Help(argparse.Action):
    """Prints the help of the command, or of the section that is named, and exits."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: object,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if values is None:
            parser.print_help()
        else:
            from addertrain.recipe.help import recipe_help

            print(recipe_help(values, width=help_width()))
        parser.exit()


def _recipe_keys() -> list[str]:
    from addertrain.recipe.keys import known_keys

    return list(known_keys())


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
