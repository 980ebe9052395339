"""The command line: what was asked for, what is said about it, and the exit code.

Nothing heavy is imported before it is needed: help and a mistyped recipe answer at once.
"""

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from addertrain.recipe import RecipeError, load_recipe, recipe_help
from addertrain.train.errors import RunError, UsageError

_SECONDS_FOR_THE_FIRST_RANK = 5.0

EXIT_CODES = """exit codes:
  0 done   1 failed   2 bad usage or recipe   130 interrupted by Ctrl-C (start again to resume)"""

_TOP = f"""examples:
  addertrain fit recipes/digits/lenet5bn.yaml             train; run it again and it goes on where it stopped
  addertrain evaluate runs/digits-lenet5bn                accuracy of the trained network
  addertrain bench ops                                    speed of the adder operators
  torchrun --nproc-per-node 2 -m addertrain fit ...       the same on two processes (one for each GPU)

{EXIT_CODES}"""

_FIT = f"""examples:
  addertrain fit recipes/digits/lenet5bn.yaml
  addertrain fit recipes/mnist/lenet5bn.yaml --out runs/small-lr --optim.lr 0.05
  torchrun --nproc-per-node 2 -m addertrain fit recipes/mnist/lenet5bn.yaml

The run directory holds recipe.yaml (every key), environment.json, TensorBoard events, checkpoints/ and,
written last, summary.json.

keys of a recipe that can be overridden:
{{keys}}

{EXIT_CODES}"""

_EVALUATE = f"""examples:
  addertrain evaluate runs/digits-lenet5bn
  addertrain evaluate runs/digits-lenet5bn/checkpoints/epoch_0040_step_000880

{EXIT_CODES}"""


_BENCH = """usage: addertrain bench {ops,step} [options]

  ops [NETWORK ...]   elements/s of every layer of a network, beside what this processor could do
  step NETWORK        a training step, beside that of the convolutional twin

See addertrain bench ops --help and addertrain bench step --help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    is_debug = "--debug" in words
    try:
        return _run([word for word in words if word != "--debug"])
    except KeyboardInterrupt as interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not cut the message
        _complain(str(interrupt) or "interrupted", prefix="")
        return 130
    except Exception as error:
        if is_debug:
            traceback.print_exc()
        is_known = isinstance(error, RunError | ValueError | OSError)
        _complain(_one_line(error), from_any_rank=not is_known)
        return 2 if isinstance(error, RecipeError | UsageError) else 1


def _run(words: list[str]) -> int:
    # Ours: everything behind "bench" belongs to the benchmark's own parser, dotted options to the recipe.
    if words[:1] == ["bench"]:
        return _bench(words[1:])
    own, overrides = split_overrides(words)
    arguments = _parser(words).parse_args(own)
    if overrides and arguments.command != "fit":
        raise UsageError(f"{overrides[0]}: keys of a recipe can be given to fit alone; see addertrain --help")
    command: Callable[[argparse.Namespace, list[str]], int] = {"fit": _fit, "evaluate": _evaluate}[
        arguments.command
    ]
    return command(arguments, overrides)


def _fit(arguments: argparse.Namespace, overrides: list[str]) -> int:
    recipe = load_recipe(arguments.recipe, overrides)
    out = Path(arguments.out or Path("runs") / recipe.name)
    from addertrain.train.run import fit

    try:
        summary = fit(recipe, out, arguments.resume)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_resume(out)) from None
    if is_first_rank():
        print(f"checkpoint   {_newest_checkpoint(out)}")
        print(f"curves       tensorboard --logdir {out}")
        print(f"evaluate     addertrain evaluate {out}")
        print(
            f"{summary.recipe}: top-1 {summary.top1:.2f} %, top-5 {summary.top5:.2f} %, "
            f"loss {summary.loss:.4f} after {summary.epochs} epochs in {summary.seconds:.0f} s "
            f"({summary.images_per_second:.0f} images/s)"
        )
    return 0


def _evaluate(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from addertrain.train.run import evaluate

    result = evaluate(arguments.path)
    if is_first_rank():
        print(
            f"{result.recipe}: top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} %, loss {result.loss:.4f} "
            f"on {result.num_images} images ({Path(result.checkpoint).name})"
        )
    return 0


def _bench(words: list[str]) -> int:
    if words[:1] in ([], ["-h"], ["--help"]):
        print(_BENCH)
        return 0
    benchmark, *rest = words
    if benchmark not in ("ops", "step"):
        raise UsageError(f"bench: expected ops or step, got '{benchmark}'; see addertrain bench --help")
    from addertrain.bench import ops, step

    return (ops if benchmark == "ops" else step).main(rest)


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


def is_first_rank() -> bool:
    """Whether this process speaks for all of them."""
    return os.environ.get("RANK", "0") == "0"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; nothing is abbreviated, so that no option means another one later."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            **{"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **settings}
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; see {self.prog} --help")


class _Version(argparse.Action):
    """Prints the versions that a report of a problem needs."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import torch

        from addertrain import __version__
        from addertrain.ops import library

        print(f"addertrain {__version__} (torch {torch.__version__}; {library.status()})")
        parser.exit()


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="addertrain",
        description="Trains AdderNets: networks whose layers add instead of multiply.",
        epilog=_TOP,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print versions and which kernels are compiled"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error, too")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wants_keys = "fit" in words and {"-h", "--help"} & set(words)
    fit = commands.add_parser(
        "fit",
        help="train a recipe, or go on with it",
        description="Trains the network that a recipe describes, or goes on where an earlier start stopped.",
        epilog=_FIT.format(keys=recipe_help() if wants_keys else ""),
    )
    fit.add_argument("recipe", metavar="RECIPE", help="a YAML file; see recipes/")
    fit.add_argument("--out", metavar="DIR", help="run directory (default: runs/ and the recipe's name)")
    fit.add_argument(
        "--resume",
        metavar="auto|none|PATH",
        default="auto",
        help="auto (default): go on from the newest whole checkpoint in DIR, if any; none: start anew, only "
        "where DIR holds no run; PATH: go on from that checkpoint or run",
    )
    evaluate = commands.add_parser(
        "evaluate",
        help="accuracy of a run or a checkpoint",
        description="Measures a checkpoint on the test images of its recipe, every image once.",
        epilog=_EVALUATE,
    )
    evaluate.add_argument(
        "path", metavar="RUN_OR_CHECKPOINT", help="a run directory (its newest checkpoint) or a checkpoint"
    )
    commands.add_parser("bench", help="measure speed: bench ops, bench step", add_help=False)
    return parser


def _newest_checkpoint(out: Path) -> Path | None:
    from addertrain.train.run_directory import RunDirectory

    return next(iter(RunDirectory(out).store.newest_first()), None)


def _how_to_resume(out: Path) -> str:
    newest = _newest_checkpoint(out)
    where = f"go on from {newest.name}" if newest else "start anew (no epoch was finished)"
    return f"interrupted; the same command will {where} in {out}"


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RunError | ValueError):
        return message
    return f"{type(error).__name__}: {message:.500} (--debug shows where)"


def _complain(message: str, *, prefix: str = "error: ", from_any_rank: bool = False) -> None:
    """One line on stderr; ranks meet most errors together, and the first one speaks for all."""
    if is_first_rank():
        print(f"addertrain: {prefix}{message}", file=sys.stderr, flush=True)
        return
    if from_any_rank:
        print(f"addertrain: {prefix}[rank {os.environ['RANK']}] {message}", file=sys.stderr, flush=True)
    elif prefix:
        # The launcher ends all ranks when one of them exits: let it be the first that does, having spoken.
        time.sleep(_SECONDS_FOR_THE_FIRST_RANK)
