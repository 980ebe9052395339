"""`addertrain plan`: what a recipe asks for, before it runs."""

import argparse
from pathlib import Path

from addertrain.cli.parser import EXIT_CODES, Commands
from addertrain.errors import UsageError

_EPILOG = f"""examples:
  addertrain plan recipes/imagenet/resnet50.yaml --world-size 64
  addertrain plan recipes/imagenet/resnet50.yaml --world-size 8 --rate 400 --memory 80
  addertrain plan recipes/imagenet/resnet18.yaml --world-size 8 --rate 2800 --decode-ms 0.6
  addertrain plan recipes/cifar10/resnet20.yaml --rate measure

An impossible plan is refused with the reason. Any key of the recipe can be overridden, as with fit.

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the command's words."""
    parser = commands.add_parser(
        "plan",
        help="batches, steps, operations, memory, disk and time of a recipe on N ranks",
        description="Works out what a recipe asks for on any number of ranks. Runs without a GPU.",
        epilog=_EPILOG,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file; see recipes/")
    parser.add_argument("--world-size", type=int, default=1, metavar="N", help="ranks in all (default: 1)")
    parser.add_argument(
        "--rate",
        metavar="IMAGES_PER_SECOND|measure",
        help="what one rank trains, or measure: find it on this machine with a few steps on noise",
    )
    parser.add_argument(
        "--decode-ms",
        metavar="MS",
        help="processor time of reading an image here, as bench loader prints it (default: a Zen 5 core's)",
    )
    parser.add_argument("--memory", type=float, metavar="GIB", help="memory of one rank's device")
    parser.add_argument("--out", metavar="DIR", help="run directory (default: runs/ and the recipe's name)")


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Prints the plan."""
    from addertrain.recipe import load_recipe

    recipe = load_recipe(arguments.recipe, overrides)
    is_measured = arguments.rate == "measure"
    rate = None
    if not is_measured and arguments.rate is not None:
        rate = _positive(arguments.rate, "--rate as images per second or 'measure'")
    decode_ms = None
    if arguments.decode_ms is not None:
        decode_ms = _positive(arguments.decode_ms, "--decode-ms as milliseconds above 0")
        if recipe.data.loader == "memory":
            raise UsageError("plan: expected --decode-ms for data.loader ffcv or torchvision, got memory")
    # After the words are checked: this imports torch.
    from addertrain.plan import make_plan, plan_text

    plan = make_plan(
        recipe,
        world_size=arguments.world_size,
        out=Path(arguments.out or Path("runs") / recipe.name),
        images_per_second=rate,
        measure=is_measured,
        memory_gib=arguments.memory,
        decode_ms=decode_ms,
    )
    print(plan_text(plan))
    return 0


def _positive(text: str, expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise UsageError(f"plan: expected {expected}, got '{text}'")
    return number
