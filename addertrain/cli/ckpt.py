"""`addertrain ckpt`: trained networks to other formats, and the authors' into ours."""

import argparse
from pathlib import Path

from addertrain.cli.parser import EXIT_CODES, Commands
from addertrain.train.errors import UsageError

_EPILOG = f"""examples:
  addertrain ckpt export runs/cifar10-resnet20 resnet20.safetensors
  addertrain ckpt export runs/cifar10-resnet20 resnet20.onnx
  addertrain ckpt import ResNet20-AdderNet.pth resnet20.safetensors --recipe recipes/cifar10/resnet20.yaml

export writes the network as evaluate reads it, with its recipe in the file's metadata; .onnx holds
standard operators only and is checked by onnxruntime. import takes a state_dict of the authors' code,
ResNet-20 or ResNet-50.

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the command's words."""
    parser = commands.add_parser(
        "ckpt",
        help="export a trained network, import one of the authors'",
        description="Writes a trained network as safetensors or ONNX; reads the authors' checkpoints.",
        epilog=_EPILOG,
    )
    parser.add_argument("action", choices=("export", "import"), help="what to do")
    parser.add_argument("source", metavar="FROM", help="a run or checkpoint; for import the authors' file")
    parser.add_argument("target", metavar="TO", help="the file to write: .safetensors, or .onnx (export)")
    parser.add_argument("--recipe", metavar="RECIPE", help="for import: the recipe of the same network")


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Writes the file."""
    target = Path(arguments.target)
    kinds = {".safetensors"} if arguments.action == "import" else {".safetensors", ".onnx"}
    if target.suffix not in kinds:
        raise UsageError(f"ckpt: expected a file name ending in {' or '.join(sorted(kinds))}, got {target}")
    if arguments.action == "import":
        _import(arguments, target)
    elif target.suffix == ".onnx":
        _export_onnx(arguments.source, target)
    else:
        from addertrain.interchange import export_safetensors, trained_network

        export_safetensors(trained_network(arguments.source), target)
        print(f"{target}: {target.stat().st_size} bytes")
    return 0


def _export_onnx(source: str, target: Path) -> None:
    from addertrain.data.facts import image_shape
    from addertrain.interchange import export_onnx, trained_network

    trained = trained_network(source)
    difference = export_onnx(trained, target, image_shape=image_shape(trained.recipe.data))
    print(f"{target}: {target.stat().st_size} bytes; logits within {difference:.1e} of PyTorch's")


def _import(arguments: argparse.Namespace, target: Path) -> None:
    if arguments.recipe is None:
        raise UsageError("ckpt import: expected --recipe with the recipe of the same network, got none")
    from addertrain.data.facts import FACTS
    from addertrain.interchange import Trained, export_safetensors, load_official
    from addertrain.recipe import load_recipe

    recipe = load_recipe(arguments.recipe)
    facts = FACTS[recipe.data.name]
    model = load_official(arguments.source, recipe.model.name, num_classes=facts.num_classes)
    export_safetensors(Trained(model, recipe, facts.num_classes, facts.mean, facts.std), target)
    print(f"{target}: {target.stat().st_size} bytes")
