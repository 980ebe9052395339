"""`addertrain preflight`: find in seconds what would end a run hours later."""

import argparse
import time
from pathlib import Path

from addertrain.cli.parser import EXIT_CODES, Commands
from addertrain.cli.ranks import is_first_rank
from addertrain.train.signals import SignalWatch

_EPILOG = f"""examples:
  addertrain preflight recipes/digits/lenet5bn.yaml
  launch/preflight --nnodes 2 --rdzv-endpoint node0:29400 recipes/imagenet/resnet50.yaml    on both machines

Keys of the recipe can be overridden as in fit. Start it as the run will be started: all ranks check.

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the command's words."""
    parser = commands.add_parser(
        "preflight",
        help="check machines, network, operators, data and disk before a run",
        description="Checks what a run of a recipe needs, on all ranks, one line each.",
        epilog=_EPILOG,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file; see recipes/")
    parser.add_argument("--out", metavar="DIR", help="run directory (default: runs/ and the recipe's name)")
    parser.add_argument("--resume", help="taken and not used, so that the words of fit can stay as they are")


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Checks; the last line sums up."""
    began = time.perf_counter()
    from addertrain.recipe import load_recipe

    recipe = load_recipe(arguments.recipe, overrides)
    out = Path(arguments.out or Path("runs") / recipe.name)
    from addertrain.train.preflight import preflight

    with SignalWatch(asking=()):  # for Ctrl-C while ranks wait for each other
        is_fine = preflight(recipe, out, lambda result: print(result, flush=True))
    if is_first_rank():
        verdict = "all fine" if is_fine else "not ready to run"
        print(f"preflight: {verdict}, in {time.perf_counter() - began:.1f} s")
    return 0 if is_fine else 1
