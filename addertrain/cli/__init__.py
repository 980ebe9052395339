"""The command line: what was asked for, what is said about it, and the exit code.

Every command is a file of this folder with `add_parser` and `run`, and stands in `_COMMANDS`. At its head it
imports what reads words and complains about them; what it works with, `run` imports. Help and a mistyped
option therefore answer at once.
"""

import argparse
import errno
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Protocol

from addertrain.cli import bench, ckpt, data, evaluate, fit, plan, preflight, report, reproduce, version
from addertrain.cli.parser import EXIT_CODES, CommandParser, Commands, split_overrides
from addertrain.cli.ranks import is_first_of_machine, is_first_rank, rank
from addertrain.errors import LostRankError, RecipeError, RunError, UsageError
from addertrain.train.output import complain, forgiving_output

__all__ = ["main", "split_overrides"]


class Command(Protocol):
    """What a command's module has; its last name is the command's."""

    __name__: str

    def add_parser(self, commands: Commands) -> None:
        """Adds the command's words."""

    def run(self, arguments: argparse.Namespace, overrides: list[str]) -> int:
        """Does it; `overrides` are the words for the recipe. Returns the exit code."""


_COMMANDS: tuple[Command, ...] = (fit, evaluate, reproduce, report, plan, preflight, bench, data, ckpt)
# Those whose words may hold keys of a recipe.
_TAKE_OVERRIDES: tuple[Command, ...] = (fit, reproduce, report, plan, preflight)

# Their results are files: what they cannot print is no loss.
_WRITE_FILES = (["fit"], ["reproduce"], ["report"])

_SECONDS_FOR_THE_FIRST_RANK = 5.0

_EPILOG = f"""examples:
  addertrain fit recipes/digits/lenet5bn.yaml             train; run it again and it goes on where it stopped
  addertrain evaluate runs/digits-lenet5bn                accuracy of the trained network
  addertrain reproduce recipes/digits/lenet5bn.yaml       whether a recipe reaches what it says
  addertrain report runs/digits-lenet5bn                  its tables and figures, as a page
  addertrain plan recipes/imagenet/resnet50.yaml --world-size 64   batches, memory and time, before it runs
  addertrain bench ops                                    speed of the adder operators
  addertrain data write PICTURES FILE.beton               pictures, packed for data.loader: ffcv
  torchrun --nproc-per-node 2 -m addertrain fit ...       the same on two processes (one for each GPU)

{EXIT_CODES}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    with forgiving_output() as out:
        code = _answer([word for word in words if word != "--debug"], is_debug="--debug" in words)
        out.flush()
        if code == 0 and words[:1] not in _WRITE_FILES and out.failure is not None:
            if out.failure.errno == errno.EPIPE:  # whoever reads has read enough
                return 0
            _complain(
                f"stdout: expected to write the result, got: {out.failure.strerror}; free the disk, say"
            )
            return 1
        return code


def _answer(words: list[str], *, is_debug: bool) -> int:
    try:
        return _run(words)
    except KeyboardInterrupt as interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not cut the message
        _complain(str(interrupt) or "interrupted", prefix="")
        return 130
    except Exception as error:
        if is_debug:
            traceback.print_exc()
        is_usage = isinstance(error, RecipeError | UsageError)
        _complain(_one_line(error), from_any_rank=_is_own(error), is_everyones=is_usage)
        return 2 if is_usage else 1


def _run(words: list[str]) -> int:
    # Everything behind "bench" belongs to the benchmark's own parser.
    if words[:1] == ["bench"]:
        return bench.run(argparse.Namespace(words=words[1:]), [])
    if words[:1] == ["--version"]:
        return version.run(words[1:])
    own, overrides = split_overrides(words)
    _refuse_empty(own)
    arguments = _parser().parse_args(own)
    command = {_name(command): command for command in _COMMANDS}[arguments.command]
    if overrides and command not in _TAKE_OVERRIDES:
        takers = ", ".join(map(_name, _TAKE_OVERRIDES))
        raise UsageError(
            f"{overrides[0]}: keys of a recipe can be given to {takers} alone; see addertrain --help"
        )
    return command.run(arguments, overrides)


def _refuse_empty(words: list[str]) -> None:
    """An empty word is what the shell makes of a variable that is not set; as a path it would mean here."""
    for place, word in enumerate(words):
        if word == "" or (word.startswith("--") and word.endswith("=") and word.count("=") == 1):
            before = " ".join(["addertrain", *words[:place], word]).rstrip()
            raise UsageError(
                f"expected a value behind {before!r}, got an empty word; is a variable of the shell not set?"
            )


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="addertrain",
        description="Trains AdderNets: networks whose layers add instead of multiply.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--version",
        action="store_true",
        help="print which torch and kernels are in use; --version --full: all that a problem's report needs",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error, too")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def _name(command: Command) -> str:
    return command.__name__.rpartition(".")[2]


def _is_own(error: Exception) -> bool:
    """Whether the error is this rank's alone, or its machine's, rather than one that all ranks meet."""
    if isinstance(error, LostRankError):  # each machine's log says what broke
        return is_first_of_machine()
    return getattr(error, "is_of_one_rank", not isinstance(error, RunError | ValueError | OSError))


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RunError | ValueError):
        return message
    return f"{type(error).__name__}: {message:.500} (--debug shows where)"


def _complain(
    message: str, *, prefix: str = "error: ", from_any_rank: bool = False, is_everyones: bool = True
) -> None:
    """One line on stderr; ranks meet most errors together, and the first one speaks for all."""
    if is_first_rank():
        complain(f"addertrain: {prefix}{message}")
        return
    if not from_any_rank:
        if not prefix:
            return
        # The launcher ends all ranks when one of them exits: let it be the first that does, having spoken.
        # Who is still here afterwards is alone with the error, such as a picture that only this rank reads.
        time.sleep(_SECONDS_FOR_THE_FIRST_RANK)
        if is_everyones:
            return
    complain(f"addertrain: {prefix}[rank {rank()}] {message}")
