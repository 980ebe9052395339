"""How every command reads its words and prints its help: errors of one line, text as wide as the terminal.

The standard library's argparse does the reading. Nothing here knows a command, a recipe or torch.
"""

import argparse
import difflib
import math
import shutil
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from addertrain.errors import UsageError, nearest

_PIPED_COLUMNS = 100
_MIN_COLUMNS, _MAX_COLUMNS = 40, 120  # longer lines are hard to read


def help_width() -> int:
    """Columns of a help text: the terminal's up to 120, and 100 where the output is no terminal."""
    columns = shutil.get_terminal_size(fallback=(_PIPED_COLUMNS, 24)).columns
    return max(_MIN_COLUMNS, min(columns, _MAX_COLUMNS))


def wrapped(text: str, *, width: int, indent: str = "") -> list[str]:
    """The lines of a sentence or paragraph, each behind `indent`; words and options are never broken."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def filled(text: str, *, width: int) -> str:
    """A help text whose paragraphs are wrapped; indented lines, such as commands, stay lines of their own.

    An indented line "command   explanation" that is too wide is wrapped in its column, or below a long
    command. A command is never broken, so that it can be copied.
    """
    lines: list[str] = []
    paragraph: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.strip() and not line.startswith(" "):
            paragraph.append(line)
            continue
        lines += wrapped(" ".join(paragraph), width=width)
        paragraph = []
        lines += _indented(line, width=width)
    return "\n".join(lines[:-1])


def _indented(line: str, *, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    command, _, explanation = line.rstrip().partition("   ")
    column = len(line) - len(explanation.lstrip())
    if not explanation.strip() or column > width // 3:
        indent = " " * (len(command) - len(command.lstrip()) + 4)
        return [command, *wrapped(explanation.strip(), width=width, indent=indent)]
    first, *others = wrapped(explanation.strip(), width=width - column)
    return [line[:column] + first, *(" " * column + other for other in others)]


class HelpFormatter(argparse.HelpFormatter):
    """argparse's layout, as wide as `help_width`, with descriptions and epilogs laid out by `filled`."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=help_width())

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return filled(text, width=width)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrapped(" ".join(text.split()), width=width)


class CommandParser(argparse.ArgumentParser):
    """Says what is wrong in one line, and takes no abbreviated option, whose meaning a later one could
    change.

    Args:
        late_epilog: makes the end of the help when it is asked for, because making it takes time.
        recipe_keys: returns the dotted keys of a recipe, if the command takes them as options too.
        settings: argparse's own.
    """

    def __init__(
        self,
        *,
        late_epilog: Callable[[], str] | None = None,
        recipe_keys: Callable[[], Collection[str]] | None = None,
        **settings: Any,
    ) -> None:
        self._options: list[str] = []
        self._late_epilog = late_epilog
        self._recipe_keys = recipe_keys
        super().__init__(**{"allow_abbrev": False, "formatter_class": HelpFormatter, **settings})

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """As argparse's; the option is remembered for what is said about an unknown one."""
        action = super().add_argument(*names, **settings)
        self._options += action.option_strings
        return action

    def format_help(self) -> str:
        """The help, with the epilog that is made late."""
        if self._late_epilog is not None:
            self.epilog = self._late_epilog()
        return super().format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse's, but nothing may be left: each command answers for its own words."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self._refuse(rest)
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Raises a UsageError, which becomes one line and exit code 2."""
        raise UsageError(f"{self.prog}: {message}; see {self.prog} --help")

    def _refuse(self, words: Sequence[str]) -> NoReturn:
        option = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
        if option is None:
            self.error(f"expected no more arguments, got {' '.join(words)!r}")
        keys = self._recipe_keys() if self._recipe_keys is not None else ()
        near = similar_options(option, self._options, keys)
        if near:
            raise UsageError(
                f"{self.prog}: expected a known option, got {option}; did you mean {' or '.join(near)}?"
            )
        self.error(f"expected a known option, got {option}")


def similar_options(option: str, options: Iterable[str], keys: Iterable[str] = ()) -> list[str]:
    """Options that may be meant by an unknown one: nearly the same, or a key whose last part is alike.

    `--lr` gives `--optim.lr`, `--batch-size` gives `--data.global_batch_size`.
    """
    by_last_part: dict[str, list[str]] = {}
    for key in keys:
        by_last_part.setdefault(key.rpartition(".")[2], []).append(f"--{key}")
    last = option.lstrip("-").replace("-", "_")
    if last in by_last_part:
        return by_last_part[last]
    if near := difflib.get_close_matches(option, list(options), n=1, cutoff=0.75):
        return near
    parts = difflib.get_close_matches(last, by_last_part, n=2)
    return [name for part in parts for name in by_last_part[part]]


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """An argument's type: one of `names`, with the nearest one in the complaint about another word."""
    known = tuple(names)

    def read(word: str) -> str:
        if word in known:
            return word
        expected = f"expected one of {', '.join(known)}, got {word!r}"
        raise argparse.ArgumentTypeError(f"{expected}; {nearest(word, known, otherwise='name one of them')}")

    return read


def whole_number(least: int = 1) -> Callable[[str], int]:
    """An argument's type: a whole number of `least` or more."""

    def read(word: str) -> int:
        if not (word.isascii() and word.isdigit() and int(word) >= least):
            raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more, got {word!r}")
        return int(word)

    return read


def number(*, can_be_0: bool = False) -> Callable[[str], float]:
    """An argument's type: a finite number above 0, or also 0."""

    def read(word: str) -> float:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not (0 < value < math.inf or (can_be_0 and value == 0)):
            expected = "a number of 0 or more" if can_be_0 else "a number above 0"
            raise argparse.ArgumentTypeError(f"expected {expected}, got {word!r}")
        return value

    return read


def existing_folder(word: str) -> Path:
    """An argument's type: a folder that exists."""
    if not Path(word).is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder that exists, got {word!r}; create it first")
    return Path(word)


def new_file(word: str) -> Path:
    """An argument's type: a file to write, so that a wrong path is refused before anything is measured."""
    path = Path(word)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a folder that exists, got {word!r}")
    return path
