"""`addertrain ckpt`: inspects, verifies, compares, converts and averages checkpoints."""

import argparse
import json
from pathlib import Path

from addertrain.cli import ckpt_convert
from addertrain.cli.parser import EXIT_CODES, Commands
from addertrain.train.output import warn

_PATH = "a run directory, whose newest intact checkpoint is used, or a checkpoint"
_EPILOG = f"""examples:
  addertrain ckpt inspect runs/cifar10-resnet20
  addertrain ckpt verify runs/cifar10-resnet20
  addertrain ckpt diff runs/one runs/other
  addertrain ckpt convert runs/cifar10-resnet20 resnet20.onnx
  addertrain ckpt convert ResNet20-AdderNet.pth resnet20.safetensors --recipe recipes/cifar10/resnet20.yaml
  addertrain ckpt average runs/a runs/b runs/c --out mean

Where a run is given instead of a checkpoint, its newest intact checkpoint is used. addertrain ckpt ACTION
--help explains an action. verify exits with 1 if a file is damaged, diff if the two checkpoints differ.

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the parser of the command."""
    parser = commands.add_parser(
        "ckpt",
        help="inspect, verify, compare, convert and average checkpoints",
        description="Inspects, verifies, compares, converts and averages checkpoints.",
        epilog=_EPILOG,
    )
    actions: Commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_inspect(actions)
    _add_verify(actions)
    _add_diff(actions)
    ckpt_convert.add_parser(actions)
    _add_average(actions)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Runs the action; only what it needs is imported."""
    action = {
        "inspect": _inspect,
        "verify": _verify,
        "diff": _diff,
        "convert": ckpt_convert.run,
        "average": _average,
    }[arguments.action]
    return action(arguments)


def _add_inspect(actions: Commands) -> None:
    parser = actions.add_parser(
        "inspect",
        help="show what a checkpoint holds",
        description="Prints the epoch and step of a checkpoint, the versions that wrote it, and its files "
        "and tensors.",
    )
    parser.add_argument("path", metavar="RUN_OR_CHECKPOINT", help=_PATH)
    parser.add_argument("--json", action="store_true", help="print the same as JSON, with the whole recipe")


def _add_verify(actions: Commands) -> None:
    parser = actions.add_parser(
        "verify",
        help="check whether checkpoints are intact",
        description="Compares every file of a checkpoint, or of all checkpoints of a run, with its checksum.",
    )
    parser.add_argument(
        "path", metavar="RUN_OR_CHECKPOINT", help="a checkpoint, or a run to check all of its checkpoints"
    )


def _add_diff(actions: Commands) -> None:
    parser = actions.add_parser(
        "diff",
        help="compare the tensors of two checkpoints",
        description="Prints max |a - b| and max |a - b| / max(|a|, |b|) for every tensor that differs.",
    )
    parser.add_argument("left", metavar="A", help="a run or a checkpoint")
    parser.add_argument("right", metavar="B", help="the run or checkpoint to compare it with")


def _add_average(actions: Commands) -> None:
    parser = actions.add_parser(
        "average",
        help="average the weights of several checkpoints",
        description="Writes a checkpoint whose weights are the mean of several checkpoints' weights. "
        "evaluate, ckpt convert and fit --init-from read it.",
    )
    parser.add_argument("paths", metavar="RUN_OR_CHECKPOINT", nargs="+", help=_PATH)
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder of the checkpoint to write")


def _inspect(arguments: argparse.Namespace) -> int:
    from addertrain.checkpoint.contents import as_text, contents

    found = contents(_located(arguments.path))
    print(json.dumps(found, indent=1) if arguments.json else as_text(found))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from addertrain.checkpoint import CheckpointError
    from addertrain.checkpoint.files import verify_checkpoint
    from addertrain.checkpoint.store import checkpoints_of

    num_damaged = 0
    for path in checkpoints_of(Path(arguments.path)):
        try:
            manifest = verify_checkpoint(path)
        except CheckpointError as error:
            num_damaged += 1
            print(f"damaged  {error}")
        else:
            num_bytes = sum(file["bytes"] for file in manifest["files"].values())
            print(f"intact   {path}: {len(manifest['files'])} files, {num_bytes} bytes")
    return 1 if num_damaged else 0


def _diff(arguments: argparse.Namespace) -> int:
    from addertrain.checkpoint.difference import differences

    found = differences(_located(arguments.left), _located(arguments.right))
    apart = [each for each in found if not each.is_none]
    if apart:
        print(f"{'':<10} {'tensor':<44} {'absolute':>10} {'relative':>10}")
    for each in sorted(apart, key=lambda each: (-each.relative, each.name)):
        values = each.objection or f"{each.absolute:>10.3e} {each.relative:>10.3e}"
        print(f"{each.file:<10} {each.name:<44} {values}")
    print(f"{len(found) - len(apart)} tensors equal, {len(apart)} different")
    return 1 if apart else 0


def _average(arguments: argparse.Namespace) -> int:
    from addertrain.checkpoint.mean import write_mean

    target = Path(arguments.out)
    write_mean([_located(path) for path in arguments.paths], target)
    print(f"{target}: the mean of {len(arguments.paths)} checkpoints, without momentum")
    print(
        "The batch-norm statistics are means too and do not fit the averaged weights. evaluate and ckpt "
        "convert recompute them unless train.recalibrate_batches is 0 in the recipe; ckpt convert "
        "--recalibrate N does in any case."
    )
    return 0


def _located(path: str) -> Path:
    """The checkpoint at `path`, or the newest intact one of the run there, verified."""
    from addertrain.checkpoint.store import locate_checkpoint

    return locate_checkpoint(Path(path), warn)
