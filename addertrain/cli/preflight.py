"""`addertrain preflight`: finds within seconds what would stop a run hours later."""

import argparse
import time

from addertrain.cli.parser import (
    EXIT_CODES,
    KEYS_NOTE,
    Commands,
    add_command_with_keys,
    add_run_directory,
    run_directory,
)
from addertrain.cli.ranks import is_first_rank
from addertrain.train.signals import SignalWatch

_EPILOG = f"""examples:
  addertrain preflight recipes/digits/lenet5bn.yaml
  launch/preflight --nnodes 2 --rdzv-endpoint node0:29400 recipes/imagenet/resnet50.yaml    on both machines

Start it with the launcher and the number of ranks of the run, because every rank checks.

{KEYS_NOTE}

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the parser of the command."""
    parser = add_command_with_keys(
        commands,
        "preflight",
        help="check machines, network, operators, data and disk before a run",
        description="Checks on all ranks whether a run of the recipe can work, and prints one line per "
        "check.",
        epilog=_EPILOG,
    )
    add_run_directory(parser)
    ignored = "accepted and ignored, so that the arguments of fit can be reused"
    parser.add_argument("--resume", metavar="auto|none|PATH", help=ignored)
    parser.add_argument("--init-from", metavar="PATH", help=ignored)
    parser.add_argument("--profile", action="store_true", help=ignored)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Checks; the last line is the verdict."""
    began = time.perf_counter()
    from addertrain.recipe import load_recipe

    recipe = load_recipe(arguments.recipe, overrides)
    out = run_directory(arguments, recipe)
    from addertrain.train.preflight import preflight

    with SignalWatch(asking=()):  # lets Ctrl-C end ranks that wait for each other
        is_fine = preflight(recipe, out, lambda result: print(result, flush=True))
    if is_first_rank():
        verdict = "ready to run" if is_fine else "not ready to run"
        print(f"preflight: {verdict}, in {time.perf_counter() - began:.1f} s")
    return 0 if is_fine else 1
