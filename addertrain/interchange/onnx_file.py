"""Exports a network to ONNX for inference, including the normalisation of pixels."""

import contextlib
import importlib
import io
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from addertrain.errors import InterchangeError
from addertrain.interchange.own_operator import DOMAIN, in_own_operators, onnxruntime_library
from addertrain.interchange.standard import in_standard_operations
from addertrain.interchange.target import exported
from addertrain.recipe import recipe_to_yaml
from addertrain.train.trained import Trained

_TOLERANCE = 1e-3  # of logits behind a norm, whose scale is 1: float32 sums in another order


def export_onnx(
    trained: Trained,
    path: str | Path,
    *,
    image_shape: tuple[int, int, int],
    operators: Literal["standard", "own"] = "standard",
) -> float:
    """Writes a network from uint8 images (N, C, H, W) to float32 logits (N, classes), for any N, and runs it
    with onnxruntime. The recipe is stored in the file's metadata. Returns the largest difference from
    PyTorch's logits.

    Args:
        operators: "standard": operators that every runtime has. "own": one node per adder layer, for
            onnxruntime with the library that `onnxruntime_library` names.

    Raises:
        InterchangeError: onnx, onnxscript, onnxruntime or the library is missing, onnxruntime does not agree
            with PyTorch, or the file cannot be written.
    """
    onnx, onnxruntime = _packages()
    options = onnxruntime.SessionOptions()
    if operators == "own":
        options.register_custom_ops_library(str(onnxruntime_library()))
    written = in_own_operators if operators == "own" else in_standard_operations
    network = _FromPixels(written(trained.model), trained.mean, trained.std).eval()
    images = torch.randint(0, 256, (2, *image_shape), dtype=torch.uint8)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch's own, about parts of it that are to change
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {"recipe": recipe_to_yaml(trained.recipe)})
    onnx.checker.check_model(model)
    _check_domains(model, {DOMAIN} if operators == "own" else set())
    with exported(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
        session = onnxruntime.InferenceSession(str(temporary), options, providers=["CPUExecutionProvider"])
        difference = _difference(session, trained, network)
        if not difference <= _TOLERANCE:
            raise InterchangeError(
                f"{path}: expected onnxruntime's logits within {_TOLERANCE:g} of PyTorch's, got a "
                f"difference of {difference:g}; the file was not written"
            )
    return difference


class _FromPixels(nn.Module):
    """Normalises uint8 images and applies the network."""

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", 255.0 * torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", 255.0 * torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model((images.float() - self.get_buffer("mean")) / self.get_buffer("std"))
        return logits


def _packages() -> tuple[Any, Any]:
    try:
        importlib.import_module("onnxscript")
        return importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    except ImportError as error:
        raise InterchangeError(
            f"ONNX export needs onnx, onnxscript and onnxruntime ({error}): pip install 'addertrain[onnx]'"
        ) from None


def _check_domains(model: Any, own: set[str]) -> None:
    others = {node.op_type for node in model.graph.node if node.domain not in {"", "ai.onnx", *own}}
    if others or model.functions:
        raise InterchangeError(
            f"ONNX: expected standard operators only, got {', '.join(sorted(others))}; replace the layers "
            "that need them"
        )


@torch.no_grad()
def _difference(session: Any, trained: Trained, network: _FromPixels) -> float:
    """The largest difference between onnxruntime's logits and those of the trained network."""
    shape = session.get_inputs()[0].shape[1:]
    images = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    (found,) = session.run(None, {"images": images.numpy()})
    pixels = (images.float() - network.get_buffer("mean")) / network.get_buffer("std")
    return float((torch.from_numpy(found) - trained.model(pixels)).abs().max())
