"""`addertrain plan`: estimates the steps, memory, disk space and time of a recipe before it runs."""

import argparse

from addertrain.cli.parser import (
    EXIT_CODES,
    KEYS_NOTE,
    Commands,
    add_command_with_keys,
    add_run_directory,
    run_directory,
)
from addertrain.command_parser import number, whole_number
from addertrain.errors import UsageError

_MEASURE = "measure"

_EPILOG = f"""examples:
  addertrain plan recipes/imagenet/resnet50.yaml --world-size 64
  addertrain plan recipes/imagenet/resnet50.yaml --world-size 8 --rate 400 --memory 80
  addertrain plan recipes/imagenet/resnet18.yaml --world-size 8 --rate 2800 --decode-ms 0.6
  addertrain plan recipes/cifar10/resnet20.yaml --rate measure

A plan that cannot work is refused with the reason.

{KEYS_NOTE}

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the parser of the command."""
    parser = add_command_with_keys(
        commands,
        "plan",
        help="estimate steps, memory, disk space and time of a recipe on N ranks",
        description="Estimates batch sizes, steps, operations, memory, disk space and time of a recipe on "
        "any number of ranks. It needs no GPU.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--world-size", type=whole_number(), default=1, metavar="N", help="the number of ranks (default: 1)"
    )
    parser.add_argument(
        "--rate",
        type=_rate,
        metavar="IMAGES_PER_SECOND|measure",
        help="the training speed of one rank, from which the time is estimated; measure finds it on this "
        "machine with a few steps on random images",
    )
    parser.add_argument(
        "--memory", type=number(), metavar="GIB",
        help="the memory of one rank's device, against which the estimate is checked",
    )  # fmt: skip
    add_run_directory(parser)
    parser.add_argument(
        "--decode-ms", type=number(), metavar="MS",
        help="the processor time in ms that this machine needs to read an image, as bench loader prints it "
        "(default: that of a Zen 5 core)",
    )  # fmt: skip


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Prints the plan."""
    from addertrain.recipe import load_recipe

    recipe = load_recipe(arguments.recipe, overrides)
    if arguments.decode_ms is not None and recipe.data.loader == "memory":
        raise UsageError(
            "plan: expected --decode-ms with data.loader: ffcv or torchvision, got memory; leave it out"
        )
    is_measured = arguments.rate == _MEASURE
    # After the arguments have been checked, because this imports torch.
    from addertrain.plan import make_plan, plan_text

    plan = make_plan(
        recipe,
        world_size=arguments.world_size,
        out=run_directory(arguments, recipe),
        images_per_second=None if is_measured else arguments.rate,
        measure=is_measured,
        memory_gib=arguments.memory,
        decode_ms=arguments.decode_ms,
    )
    print(plan_text(plan))
    return 0


def _rate(word: str) -> float | str:
    """Images per second, or the word that asks to measure them."""
    if word == _MEASURE:
        return word
    try:
        return number()(word)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected images per second above 0, or {_MEASURE}, got {word!r}"
        ) from None
