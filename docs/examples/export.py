"""Writes the networks of segmentation.py and detection.py as ONNX, in operators that every runtime has.

Needs `addertrain[onnx]`.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from addertrain.interchange.standard import in_standard_operations


def write_segmentation(model: nn.Module, images: Tensor, path: Path) -> None:
    """From images as the network takes them, [N, 3, H, W] for any N, to logits [N, classes, H, W]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about parts of it that are to change
        torch.onnx.export(
            _Logits(in_standard_operations(model)).eval(),
            (images,),
            path,
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
        )


def write_detector(model: nn.Module, image: Tensor, path: Path) -> None:
    """From one image [3, H, W] of this size to its boxes [n, 4], labels [n] and scores [n], sorted by score.

    The number n of detections depends on the image. torch.export, and with it dynamo=True, cannot follow
    torchvision's detectors there; torch's older exporter records one run and can.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            in_standard_operations(model),
            ([image],),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=["boxes", "labels", "scores"],
        )


class _Logits(nn.Module):
    """torchvision's segmentation networks return a dictionary."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)["out"]
        return logits
