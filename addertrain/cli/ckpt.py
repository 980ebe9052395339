"""`addertrain ckpt`: what checkpoints hold, whether they are whole, how far apart; other formats; means."""

import argparse
import json
from pathlib import Path

from addertrain.cli import ckpt_convert
from addertrain.cli.parser import EXIT_CODES, CommandParser, Commands
from addertrain.train.output import warn

_EPILOG = f"""examples:
  addertrain ckpt inspect runs/cifar10-resnet20
  addertrain ckpt verify runs/cifar10-resnet20
  addertrain ckpt diff runs/one runs/other
  addertrain ckpt convert runs/cifar10-resnet20 resnet20.onnx
  addertrain ckpt convert ResNet20-AdderNet.pth resnet20.safetensors --recipe recipes/cifar10/resnet20.yaml
  addertrain ckpt average runs/a runs/b runs/c --out mean

A run stands for its newest whole checkpoint. addertrain ckpt ACTION --help says more of each.
verify ends with 1 where something is damaged, diff where the two are not equal.

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the command's words."""
    parser = commands.add_parser(
        "ckpt",
        help="look at checkpoints, verify, compare, convert and average them",
        description="Looks at checkpoints, verifies, compares, converts and averages them.",
        epilog=_EPILOG,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_inspect(actions)
    _add_verify(actions)
    _add_diff(actions)
    ckpt_convert.add_parser(actions)
    _add_average(actions)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Does it; nothing is imported that it does not need."""
    action = {
        "inspect": _inspect,
        "verify": _verify,
        "diff": _diff,
        "convert": ckpt_convert.run,
        "average": _average,
    }[arguments.action]
    return action(arguments)


def _add_inspect(actions: "argparse._SubParsersAction[CommandParser]") -> None:
    parser = actions.add_parser(
        "inspect",
        help="what is in a checkpoint",
        description="Says where the run stood, with which versions, and lists files and tensors.",
    )
    parser.add_argument("path", metavar="RUN_OR_CHECKPOINT")
    parser.add_argument("--json", action="store_true", help="the same and the whole recipe as JSON")


def _add_verify(actions: "argparse._SubParsersAction[CommandParser]") -> None:
    parser = actions.add_parser(
        "verify",
        help="whether checkpoints are whole",
        description="Compares every file with its checksum, of a run in all of its checkpoints.",
    )
    parser.add_argument("path", metavar="RUN_OR_CHECKPOINT")


def _add_diff(actions: "argparse._SubParsersAction[CommandParser]") -> None:
    parser = actions.add_parser(
        "diff",
        help="how far apart two checkpoints are",
        description="Prints, of every tensor that differs, max |a - b| and max |a - b| / max(|a|, |b|).",
    )
    parser.add_argument("left", metavar="A", help="a run or checkpoint")
    parser.add_argument("right", metavar="B", help="another one")


def _add_average(actions: "argparse._SubParsersAction[CommandParser]") -> None:
    parser = actions.add_parser(
        "average",
        help="the mean of several checkpoints' weights",
        description="Writes the mean of several checkpoints' weights as a checkpoint that evaluate, ckpt "
        "convert and fit --init-from read.",
    )
    parser.add_argument("paths", metavar="RUN_OR_CHECKPOINT", nargs="+")
    parser.add_argument("--out", metavar="DIR", required=True, help="the checkpoint to write")


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
            print(f"whole    {path}: {len(manifest['files'])} files, {num_bytes} bytes")
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
        "Its running statistics are means too and fit no network: evaluate and ckpt convert recompute them "
        "where the recipe's train.recalibrate_batches is not 0, ckpt convert also with --recalibrate N."
    )
    return 0


def _located(path: str) -> Path:
    """The checkpoint that is meant, verified."""
    from addertrain.checkpoint.store import locate_checkpoint

    return locate_checkpoint(Path(path), warn)
