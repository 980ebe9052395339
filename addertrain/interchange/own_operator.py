"""Networks for onnxruntime with one node per adder layer, computed by this package's CPU kernels.

The node addertrain::AdderConv2d takes x_nchw and w_ocrs, has the attributes stride, padding, dilation and
offset_free, and computes Eq. 2, or with offset_free Y + Σ|w|; its groups follow from the channels of x and w.
The library behind it needs no torch.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from addertrain import compiled
from addertrain.errors import InterchangeError
from addertrain.interchange.standard import with_adders
from addertrain.nn import AdderConv2d, AdderLinear
from addertrain.nn.padding import PaddingMode, padded
from addertrain.ops.geometry import output_shape

DOMAIN = "addertrain"


def onnxruntime_library() -> Path:
    """The path of the library for `SessionOptions.register_custom_ops_library`, in any language.

    Raises:
        InterchangeError: the library was not built.
    """
    if (path := compiled.find("_C_onnxruntime")) is not None:
        return path
    raise InterchangeError(
        "--operators own needs the library _C_onnxruntime.so, which was not built; unpack onnxruntime's "
        "release archive and run pip install . --config-settings cmake.define.ONNXRUNTIME_INCLUDE=FOLDER, "
        "where FOLDER holds onnxruntime_c_api.h"
    )


def in_own_operators(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that is only for export: in PyTorch its adder layers return zeros.

    Raises:
        InterchangeError: an adder layer whose power is not 1.
    """
    return with_adders(model, _Node)


class _Node(nn.Module):
    """An adder layer as it is exported; a linear layer is treated as a layer on a single pixel."""

    def __init__(self, layer: AdderConv2d | AdderLinear) -> None:
        super().__init__()
        self.bias, self.is_linear = layer.bias, isinstance(layer, AdderLinear)
        weight = layer.weight.detach()
        self.register_buffer("weight", weight[:, :, None, None].clone() if self.is_linear else weight)
        sizes = (
            (layer.stride, layer.padding, layer.dilation) if isinstance(layer, AdderConv2d) else _ONE_PIXEL
        )
        self.stride, self.padding, self.dilation = sizes
        self.offset_free = int(layer.offset_free)
        self.edges = layer.edges if isinstance(layer, AdderConv2d) else None
        self.padding_mode: PaddingMode = layer.padding_mode if isinstance(layer, AdderConv2d) else "zeros"

    def forward(self, x: Tensor) -> Tensor:
        weight = self.get_buffer("weight")
        pixels = x.reshape(-1, x.shape[-1], 1, 1) if self.is_linear else x
        pixels = padded(pixels, self.edges, self.padding_mode)
        y: Tensor = torch.onnx.ops.symbolic(
            f"{DOMAIN}::AdderConv2d",
            (pixels, weight),
            {
                "stride": list(self.stride), "padding": list(self.padding), "dilation": list(self.dilation),
                "offset_free": self.offset_free,
            },
            dtype=x.dtype,
            shape=output_shape(pixels, weight, self.stride, self.padding, self.dilation),
            version=1,
        )  # fmt: skip
        if self.is_linear:
            y = y.reshape(*x.shape[:-1], weight.shape[0])
            return y if self.bias is None else y + self.bias
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


_ONE_PIXEL = ((1, 1), (0, 0), (1, 1))
