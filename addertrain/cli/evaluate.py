"""`addertrain evaluate`: measures the accuracy of a run or a checkpoint."""

import argparse
from pathlib import Path

from addertrain.cli.parser import EXIT_CODES, Commands
from addertrain.cli.ranks import is_first_rank
from addertrain.train.signals import SignalWatch

_EPILOG = f"""examples:
  addertrain evaluate runs/digits-lenet5bn
  addertrain evaluate runs/digits-lenet5bn/checkpoints/epoch_0040_step_000880
  addertrain evaluate runs/digits-lenet5bn --precision int8

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the parser of the command."""
    parser = commands.add_parser(
        "evaluate",
        help="measure the accuracy of a run or a checkpoint",
        description="Measures the accuracy of a checkpoint on the test images of its recipe, each image "
        "once.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "path",
        metavar="RUN_OR_CHECKPOINT",
        help="a run directory, whose newest intact checkpoint is used, or a checkpoint",
    )
    parser.add_argument(
        "--precision",
        choices=["float32", "int8"],
        default="float32",
        help="the precision of adder layers: float32 (the default), or int8, which is calibrated on a few "
        "training batches and reported together with float32",
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Evaluates and prints the result."""
    from addertrain.train.run import evaluate

    with SignalWatch(asking=()):  # lets Ctrl-C end ranks that wait for each other
        result = evaluate(arguments.path, precision=arguments.precision)
    if is_first_rank():
        beside = ""
        if result.top1_uncalibrated is not None:
            beside = f", {result.top1_uncalibrated:.2f} % uncalibrated"
        if result.top1_float32 is not None:
            beside = f" in int8; float32: {result.top1_float32:.2f} %"
        print(
            f"{result.recipe}: top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} %, loss {result.loss:.4f} "
            f"on {result.num_images} images{beside} ({Path(result.checkpoint).name})"
        )
    return 0
