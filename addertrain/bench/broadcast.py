"""Adder layers without kernels: the paper's formulas by broadcasting, and `torch.cdist`."""

import torch
import torch.nn.functional as F
from torch import Tensor

from addertrain.bench.layers import LayerShape

_MOST_ELEMENTS = (
    320_000_000  # the formulas hold every |x - w| in memory, 4 bytes each, about three times over
)


def images_that_fit(layer: LayerShape, batch: int) -> int:
    """How many images the broadcast formulas can process in a few GB; at least one."""
    return max(1, min(batch, _MOST_ELEMENTS // layer.elements_per_image))


def broadcast_training(
    x: Tensor, weight: Tensor, dy: Tensor, layer: LayerShape
) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 2, Eq. 5 and Eq. 6 over all filters, taps and positions at once: response, dW and unfolded dX."""
    x_km = _columns(x, layer)
    w_ok = weight.flatten(1)
    dy_om = dy.transpose(0, 1).flatten(1)
    y_om = -(w_ok.unsqueeze(2) - x_km.unsqueeze(0)).abs().sum(1)
    dw_ok = ((x_km.unsqueeze(0) - w_ok.unsqueeze(2)) * dy_om.unsqueeze(1)).sum(2)
    dx_km = ((w_ok.unsqueeze(2) - x_km.unsqueeze(0)).clamp(-1, 1) * dy_om.unsqueeze(1)).sum(0)
    return y_om, dw_ok, dx_km


def cdist_forward(x: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
    """The response by torch.cdist(p=1)."""
    return -torch.cdist(_columns(x, layer).t().unsqueeze(0), weight.flatten(1).unsqueeze(0), p=1.0)


def _columns(x: Tensor, layer: LayerShape) -> Tensor:
    """Unfolded input [K, N*P*Q]."""
    patches = F.unfold(x.contiguous(), layer.kernel, padding=layer.padding, stride=layer.stride)
    return patches.permute(1, 0, 2).flatten(1)
