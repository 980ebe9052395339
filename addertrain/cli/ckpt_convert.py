"""`addertrain ckpt convert`: writes trained networks in other formats, and reads the authors' checkpoints."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from addertrain.cli.parser import Commands
from addertrain.command_parser import whole_number
from addertrain.errors import UsageError

if TYPE_CHECKING:
    from addertrain.interchange import Trained

_SUFFIXES = (".safetensors", ".pt", ".onnx")
_EPILOG = """The suffix of TO chooses the format:
  .safetensors   parameters and buffers, with the recipe in the metadata of the file
  .pt            a plain state_dict, which torch.load(TO, weights_only=True) reads
  .onnx          checked with onnxruntime; takes uint8 images (N, C, H, W) for any N

The network is written as evaluate would evaluate it: with averaged weights if the recipe averages them, and
with batch-norm statistics recomputed on training images. To read a checkpoint that the AdderNet authors' code
wrote (ResNet-20 or ResNet-50), name its recipe with --recipe. docs/checkpoints.md explains the formats."""


def add_parser(actions: Commands) -> None:
    """Adds the parser of the action."""
    parser = actions.add_parser(
        "convert",
        help="write a trained network as safetensors, state_dict or ONNX",
        description="Writes a trained network as safetensors, a plain state_dict or ONNX.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "source", metavar="FROM", help="a run, a checkpoint, or, with --recipe, a file of the authors' code"
    )
    parser.add_argument(
        "target", metavar="TO", help=f"the file to write, which ends in {', '.join(_SUFFIXES)}"
    )
    parser.add_argument(
        "--recipe", metavar="RECIPE", help="the recipe of the network, if FROM is a file of the authors' code"
    )
    parser.add_argument(
        "--layout",
        choices=("own", "authors"),
        default="own",
        help="the parameter names in a .pt: this package's own (the default), or those of the authors' code",
    )
    parser.add_argument(
        "--operators",
        choices=("standard", "own"),
        default="standard",
        help="the operators in an .onnx: standard ones (the default), or one own node per adder layer, which "
        "onnxruntime computes with this package's CPU kernels",
    )
    parser.add_argument(
        "--recalibrate",
        metavar="N",
        type=whole_number(0),
        help="the number of training batches on which batch-norm statistics are recomputed; 0 keeps those of "
        "training (default: train.recalibrate_batches of the recipe)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the file."""
    target = Path(arguments.target)
    if target.suffix not in _SUFFIXES:
        raise UsageError(f"ckpt convert: expected a name ending in {', '.join(_SUFFIXES)}, got {target}")
    if arguments.layout == "authors" and target.suffix != ".pt":
        raise UsageError(f"ckpt convert: expected a name ending in .pt for --layout authors, got {target}")
    if arguments.operators == "own" and target.suffix != ".onnx":
        raise UsageError(f"ckpt convert: expected a name ending in .onnx for --operators own, got {target}")
    if target.exists() and os.path.exists(arguments.source) and target.samefile(arguments.source):
        raise UsageError(
            f"ckpt convert: expected two different files, got {target} as FROM and TO; choose another TO"
        )
    trained = _trained(arguments)
    note = _write(trained, target, arguments)
    print(f"{target}: {target.stat().st_size} bytes{note}")
    return 0


def _write(trained: "Trained", target: Path, arguments: argparse.Namespace) -> str:
    """Writes the file and returns a note on it for the user."""
    from addertrain.interchange import export_onnx, export_safetensors, export_state_dict

    if target.suffix == ".safetensors":
        export_safetensors(trained, target)
    elif target.suffix == ".pt":
        export_state_dict(trained, target, layout=arguments.layout)
    else:
        shape = trained.image_shape
        difference = export_onnx(trained, target, image_shape=shape, operators=arguments.operators)
        sizes = ", ".join(map(str, shape))
        return (
            f"; takes uint8 images (N, {sizes}), gives logits (N, {trained.num_classes}), which are within "
            f"{difference:.1e} of PyTorch's"
        )
    return ""


def _trained(arguments: argparse.Namespace) -> "Trained":
    from addertrain.interchange import Trained, load_official, trained_network

    if arguments.recipe is None:
        if Path(arguments.source).is_file():
            raise UsageError(
                "ckpt convert: expected a run or checkpoint, which is a folder, got the file "
                f"{arguments.source}; if the authors' code wrote it, name its recipe with --recipe"
            )
        return trained_network(arguments.source, recalibrate_batches=arguments.recalibrate)
    if arguments.recalibrate:
        raise UsageError(
            "ckpt convert: expected --recalibrate only for runs of this package, got it with --recipe; "
            "leave it out"
        )
    from addertrain.data.sets.registry import facts_before_reading, image_shape
    from addertrain.recipe import load_recipe

    recipe = load_recipe(arguments.recipe)
    facts = facts_before_reading(recipe.data)
    if facts is None:
        raise UsageError(
            "ckpt convert: expected a recipe for cifar10, cifar100 or imagenet, on which the authors "
            f"trained, got data.name {recipe.data.name}; choose another --recipe"
        )
    model = load_official(arguments.source, recipe.model.name, num_classes=facts.num_classes)
    shape = image_shape(recipe.data)
    return Trained(model, recipe, facts.num_classes, facts.mean, facts.std, image_shape=shape)
