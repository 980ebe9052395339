"""Random tensors of a layer's sizes, on any device."""

import torch
from torch import Tensor

from addertrain.bench.layers import LayerShape


def operands(
    layer: LayerShape,
    batch: int,
    layout: str,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor]:
    """x after a ReLU, weight, and dy; `layout` "channels-last" or "nchw"."""
    memory_format = torch.channels_last if layout == "channels-last" else torch.contiguous_format
    size, out = layer.size, layer.output_size
    x = torch.randn(batch, layer.C, size, size, device=device).relu()
    weight = 2 * torch.randn(layer.O, layer.C, layer.kernel, layer.kernel, device=device)
    dy = torch.randn(batch, layer.O, out, out, device=device)
    x, dy = (t.to(dtype=dtype, memory_format=memory_format) for t in (x, dy))
    return x, weight.to(dtype), dy
