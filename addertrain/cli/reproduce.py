"""`addertrain reproduce`: trains a recipe's seeds and checks the result against its `expected` section."""

import argparse
import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from addertrain.cli.fit import SAVED
from addertrain.cli.parser import EXIT_CODES, KEYS_NOTE, Commands, add_command_with_keys
from addertrain.cli.ranks import is_first_rank, is_launched
from addertrain.command_parser import whole_number
from addertrain.errors import SavedAfterSignal
from addertrain.train.output import complain
from addertrain.train.signals import SignalWatch, end_with_launcher

if TYPE_CHECKING:
    from addertrain.train.reproduction import Reproduction

NOT_REPRODUCED = 3

_EPILOG = f"""examples:
  addertrain reproduce recipes/digits/lenet5bn.yaml                  train the seeds, then check them
  addertrain reproduce recipes/mnist/lenet5bn.yaml --seeds 1
  addertrain reproduce recipes/mnist/lenet5bn.yaml --from runs/a runs/b    check finished runs

The accuracy of every run is measured again from its checkpoint and compared with its summary.json. The same
command resumes an interrupted reproduction. DIR gets one run directory per seed, and reproduction.json.

{KEYS_NOTE}

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the parser of the command."""
    parser = add_command_with_keys(
        commands,
        "reproduce",
        help="train a recipe's seeds and check the result against its expected section",
        description="Trains the seeds of a recipe, or takes finished runs, and checks their mean accuracy "
        "against the expected section of the recipe.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--seeds",
        type=whole_number(),
        metavar="N",
        help="the number of seeds to train (default: expected.seeds)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="the folder of the runs (default: runs/NAME-reproduced, where NAME is the recipe's name)",
    )
    parser.add_argument(
        "--from",
        dest="runs",
        nargs="+",
        metavar="RUN",
        default=[],
        help="check these finished runs and train nothing",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Prints the verdict on the last line; returns 0 if the result was reproduced, 3 if not."""
    try:
        verdict = _verdict(arguments, overrides)
    except SavedAfterSignal as saved:
        if is_first_rank():
            complain(f"addertrain: {saved}")
        return SAVED
    if is_first_rank():
        for trial in verdict.trials:
            print(f"seed {trial.seed}: top-1 {trial.top1:.2f} %  {trial.run}")
        print(f"data {verdict.data_sha256}")
        print(verdict.markdown)
        for objection in verdict.objections:
            print(f"not reproduced: {objection}")
        word = "reproduced" if verdict.is_reproduced else "not reproduced"
        print(
            f"{verdict.recipe}: top-1 {verdict.result} %, expected {verdict.expected:.2f} ± "
            f"{verdict.tolerance:.2f} %: {word}"
        )
    return 0 if verdict.is_reproduced else NOT_REPRODUCED


def _verdict(arguments: argparse.Namespace, overrides: list[str]) -> "Reproduction":
    """Trains, unless finished runs are given, and checks the result; watches for signals while it trains."""
    runs = [Path(run) for run in arguments.runs]
    with contextlib.nullcontext() if runs else SignalWatch() as signals:
        if is_launched():
            end_with_launcher()
        from addertrain.recipe import load_recipe

        recipe = load_recipe(arguments.recipe, overrides)
        out = Path(arguments.out or Path("runs") / f"{recipe.name}-reproduced")
        from addertrain.train.reproduction import judge, train_seeds

        if not runs:
            num_seeds = recipe.expected.seeds if arguments.seeds is None else arguments.seeds
            runs = train_seeds(recipe, out, num_seeds=num_seeds, signals=signals)
    command = ["addertrain", "reproduce", arguments.recipe, *overrides]
    if arguments.seeds is not None:
        command += ["--seeds", str(arguments.seeds)]
    return judge(recipe, runs, out=out, command=shlex.join(command))
