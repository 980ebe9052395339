"""The command line: finds the command, runs it, turns errors into one line, and returns the exit code.

Every command is a file in this folder with `add_parser` and `run`, and is listed in `_COMMANDS`. A command's
module imports only what its parser needs; `run` imports the rest. So help and a mistyped option answer at
once.
"""

import argparse
import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Protocol

from addertrain.cli import bench, ckpt, data, evaluate, fit, plan, preflight, report, reproduce, version
from addertrain.cli.parser import EXIT_CODES, Commands, split_overrides
from addertrain.cli.ranks import is_first_of_machine, is_first_rank, rank
from addertrain.command_parser import CommandParser
from addertrain.errors import LostRankError, RecipeError, RunError, UsageError
from addertrain.train.output import complain, forgiving_output

__all__ = ["main", "split_overrides"]


class Command(Protocol):
    """What the module of a command provides; the last part of its name is the name of the command."""

    __name__: str

    def add_parser(self, commands: Commands) -> None:
        """Adds the parser of the command."""

    def run(self, arguments: argparse.Namespace, overrides: list[str]) -> int:
        """Runs the command; `overrides` are the keys of the recipe on the command line.

        Returns the exit code.
        """


_COMMANDS: tuple[Command, ...] = (fit, evaluate, reproduce, report, plan, preflight, bench, data, ckpt)
# The commands that take keys of a recipe as options.
_TAKE_OVERRIDES: tuple[Command, ...] = (fit, reproduce, report, plan, preflight)

# The results of these commands are files, so a failure to print loses nothing.
_WRITE_FILES = (["fit"], ["reproduce"], ["report"])

_SECONDS_FOR_THE_FIRST_RANK = 5.0

_EPILOG = f"""examples:
  addertrain fit recipes/digits/lenet5bn.yaml         train a recipe; the same command resumes it
  addertrain evaluate runs/digits-lenet5bn            measure the accuracy of the trained network
  addertrain reproduce recipes/digits/lenet5bn.yaml   train, and check the accuracy that is expected
  addertrain report runs/digits-lenet5bn              write an HTML page of tables and figures
  addertrain plan recipes/imagenet/resnet50.yaml --world-size 64   estimate memory, disk and time
  addertrain bench ops                                measure the speed of the adder operators
  addertrain data write IMAGES FILE.beton             pack images for data.loader: ffcv
  launch/torchrun fit recipes/digits/lenet5bn.yaml    train on all GPUs of this machine, one process for each

{EXIT_CODES}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    # No command opens a window. Lightning imports matplotlib, and that import fails if the variable, which
    # may be meant for another program, names a backend that this matplotlib does not have.
    os.environ["MPLBACKEND"] = "agg"
    with forgiving_output() as out:
        code = _answer([word for word in words if word != "--debug"], is_debug="--debug" in words)
        out.flush()
        if code == 0 and words[:1] not in _WRITE_FILES and out.failure is not None:
            if out.failure.errno == errno.EPIPE:  # the reader, such as head, has closed the pipe
                return 0
            _complain(
                f"stdout: expected to print the result, got: {out.failure.strerror}; check where the output "
                "goes"
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
    # Each benchmark has a parser of its own, which reads everything after "bench".
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
            f"{overrides[0]}: expected keys of a recipe with {takers} only, got one with "
            f"{arguments.command}; leave it out"
        )
    return command.run(arguments, overrides)


def _refuse_empty(words: list[str]) -> None:
    """Refuses an empty argument, which an unset shell variable leaves and which would mean this folder."""
    for place, word in enumerate(words):
        if word == "" or (word.startswith("--") and word.endswith("=") and word.count("=") == 1):
            before = " ".join(["addertrain", *words[:place], word]).rstrip()
            raise UsageError(
                f"expected a value after {before!r}, got an empty word; check whether a shell variable is "
                "unset"
            )


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="addertrain",
        description="Trains AdderNets: neural networks whose layers measure distances by additions instead "
        "of computing products.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--version",
        action="store_true",
        help="print the versions of torch and of the kernels in use; with --full, everything that a bug "
        "report should contain",
    )
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error as well")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def _name(command: Command) -> str:
    return command.__name__.rpartition(".")[2]


def _is_own(error: Exception) -> bool:
    """Whether only this rank, or only its machine, meets the error; most errors are met by all ranks."""
    if isinstance(error, LostRankError):  # so that the log of each machine says what broke
        return is_first_of_machine()
    return getattr(error, "is_of_one_rank", not isinstance(error, RunError | ValueError | OSError))


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RunError | ValueError):
        return message
    return f"{type(error).__name__}: {message:.500} (--debug prints the traceback)"


def _complain(
    message: str, *, prefix: str = "error: ", from_any_rank: bool = False, is_everyones: bool = True
) -> None:
    """Prints one line on stderr; where all ranks meet an error, only the first rank prints it."""
    if is_first_rank():
        complain(f"addertrain: {prefix}{message}")
        return
    if not from_any_rank:
        if not prefix:
            return
        # The launcher ends all ranks when one of them exits, so the first rank gets the time to print and
        # exit. A rank that is still running afterwards met the error alone, such as an image that only it
        # reads.
        time.sleep(_SECONDS_FOR_THE_FIRST_RANK)
        if is_everyones:
            return
    complain(f"addertrain: {prefix}[rank {rank()}] {message}")
