"""`addertrain reproduce`: whether a recipe reaches what it says."""

import argparse
import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from addertrain.cli.fit import SAVED
from addertrain.cli.parser import EXIT_CODES, Commands
from addertrain.cli.ranks import is_first_rank, is_launched
from addertrain.errors import SavedAfterSignal
from addertrain.train.output import complain
from addertrain.train.signals import SignalWatch, end_with_launcher

if TYPE_CHECKING:
    from addertrain.train.reproduction import Reproduction

NOT_REPRODUCED = 3

_EPILOG = f"""examples:
  addertrain reproduce recipes/digits/lenet5bn.yaml                  train the recipe's seeds, then judge
  addertrain reproduce recipes/mnist/lenet5bn.yaml --seeds 1
  addertrain reproduce recipes/mnist/lenet5bn.yaml --from runs/a runs/b    judge runs that have finished

Accuracy is measured anew from each run's checkpoint; what summary.json says is only compared. Started again,
it goes on where it stopped. DIR gets a folder for each seed, and reproduction.json.

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the command's words."""
    parser = commands.add_parser(
        "reproduce",
        help="train a recipe and say whether it reaches what it says",
        description="Trains the seeds of a recipe, or takes finished runs, and judges them by `expected`.",
        epilog=_EPILOG,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file; see recipes/")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many seeds (default: expected.seeds)")
    parser.add_argument(
        "--out", metavar="DIR", help="where the runs go (default: runs/ and the recipe's name, -reproduced)"
    )
    parser.add_argument(
        "--from", dest="runs", nargs="+", metavar="RUN", default=[], help="judge these runs; train nothing"
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Prints the verdict last; 0 if reproduced, 3 if not."""
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
    """Trains, unless there are runs already, and judges; signals are watched for as long as it trains."""
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
