"""A trained network in one safetensors file, with its recipe in the file's metadata."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

import addertrain
from addertrain.errors import InterchangeError
from addertrain.interchange.target import exported
from addertrain.recipe import Recipe, parse_recipe, recipe_to_yaml
from addertrain.train.building import build_network
from addertrain.train.trained import Trained

FORMAT = "addertrain network 1"


def export_safetensors(trained: Trained, path: str | Path) -> None:
    """Parameters and buffers by name; metadata: format, recipe (YAML), num_classes, mean, std, versions.

    Raises:
        InterchangeError: the file cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "recipe": recipe_to_yaml(trained.recipe),
        "num_classes": str(trained.num_classes),
        "mean": " ".join(map(str, trained.mean)),
        "std": " ".join(map(str, trained.std)),
        "addertrain": addertrain.__version__,
        "torch": str(torch.__version__),
    }
    tensors = {name: tensor.contiguous() for name, tensor in trained.model.state_dict().items()}
    with exported(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=metadata))  # save_file would let nobody else read it


def load_exported(path: str | Path) -> tuple[nn.Module, Recipe]:
    """The network of an exported file, in evaluation mode, and its recipe.

    Raises:
        InterchangeError: another file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InterchangeError(
            f"{path}: expected a safetensors file, got: {error}; write it with addertrain ckpt convert"
        ) from None
    if metadata.get("format") != FORMAT:
        raise InterchangeError(
            f"{path}: expected format '{FORMAT}' in the metadata, got {metadata.get('format')!r}; "
            "write it with addertrain ckpt convert"
        )
    recipe = parse_recipe(metadata["recipe"], source=str(path))
    num_classes, in_channels = int(metadata["num_classes"]), len(metadata["mean"].split())
    model = build_network(recipe.model, num_classes=num_classes, in_channels=in_channels)
    model.load_state_dict(tensors)
    return model.eval(), recipe
