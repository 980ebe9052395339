"""`addertrain ckpt convert`: trained networks to other formats, and the authors' into ours."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from addertrain.cli.parser import CommandParser
from addertrain.errors import UsageError

if TYPE_CHECKING:
    from addertrain.interchange import Trained

_SUFFIXES = (".safetensors", ".pt", ".onnx")
_EPILOG = """TO decides the format:
  .safetensors   parameters and buffers, with the recipe in the file's metadata
  .pt            a plain state_dict; torch.load(TO, weights_only=True) reads it
  .onnx          standard operators only, checked by onnxruntime; takes uint8 images (N, C, H, W) of the
                 recipe's size, whose normalisation is part of the file, and any number N of them

The network is written as evaluate reads it: averaged weights where the recipe keeps them, running
statistics recomputed on training images. A checkpoint of the authors' code (ResNet-20 or ResNet-50)
needs --recipe; --layout authors writes a .pt under their names. --operators own writes an .onnx with one
node an adder layer, which onnxruntime computes with this package's CPU kernels; see docs/checkpoints.md."""


def add_parser(actions: "argparse._SubParsersAction[CommandParser]") -> None:
    """Adds the action's words."""
    parser = actions.add_parser(
        "convert",
        help="a trained network in another format, or the authors' in ours",
        description="Writes a trained network as safetensors, a plain state_dict or ONNX.",
        epilog=_EPILOG,
    )
    parser.add_argument("source", metavar="FROM", help="a run, a checkpoint, or with --recipe the authors'")
    parser.add_argument("target", metavar="TO", help=f"the file to write: {', '.join(_SUFFIXES)}")
    parser.add_argument("--recipe", metavar="RECIPE", help="the recipe of the authors' network in FROM")
    parser.add_argument(
        "--layout", choices=("own", "authors"), default="own", help="names in a .pt (default: own)"
    )
    parser.add_argument(
        "--operators", choices=("standard", "own"), default="standard", help="of an .onnx (default: standard)"
    )
    parser.add_argument(
        "--recalibrate",
        metavar="N",
        type=int,
        help="training batches that recompute the statistics; 0: as training left them (default: as the "
        "recipe says)",
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
    if arguments.recalibrate is not None and arguments.recalibrate < 0:
        raise UsageError(
            "ckpt convert: expected --recalibrate as a number of batches from 0 on, got "
            f"{arguments.recalibrate}"
        )
    if target.exists() and os.path.exists(arguments.source) and target.samefile(arguments.source):
        raise UsageError(f"ckpt convert: expected two files, got {target} as FROM and TO; choose another TO")
    trained = _trained(arguments)
    note = _write(trained, target, arguments)
    print(f"{target}: {target.stat().st_size} bytes{note}")
    return 0


def _write(trained: "Trained", target: Path, arguments: argparse.Namespace) -> str:
    """Writes the file and returns what else is to be said of it."""
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
                f"ckpt convert: expected --recipe with the recipe of the network in {arguments.source}, got "
                "none; a run or a checkpoint is a folder"
            )
        return trained_network(arguments.source, recalibrate_batches=arguments.recalibrate)
    if arguments.recalibrate:
        raise UsageError("ckpt convert: expected no --recalibrate beside --recipe; fit and evaluate do that")
    from addertrain.data.sets.registry import facts_before_reading, image_shape
    from addertrain.recipe import load_recipe

    recipe = load_recipe(arguments.recipe)
    facts = facts_before_reading(recipe.data)
    if facts is None:
        raise UsageError(
            f"ckpt convert: expected data of the authors' in --recipe, got data.name {recipe.data.name}; "
            "their networks are of cifar10, cifar100 and imagenet"
        )
    model = load_official(arguments.source, recipe.model.name, num_classes=facts.num_classes)
    shape = image_shape(recipe.data)
    return Trained(model, recipe, facts.num_classes, facts.mean, facts.std, image_shape=shape)
