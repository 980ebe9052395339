"""Sums over every pair of a patch and a filter, for forms of the adder layer that have no faster way.

One filter at a time against a few images' patches, few enough to stay in a CPU's cache. X is the zero-padded
input under the filter; float64 for float64, float32 otherwise. 0.2e9 to 0.5e9 pairs a second and CPU core for
powers, 0.5e9 to 1.3e9 for signs (shared cores); the layer's own kernels do 20e9 to 70e9 there.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from addertrain.ops.geometry import output_shape
from addertrain.ops.layout import empty_like_input

Sizes = Sequence[int]
InPlace = Callable[[Tensor], Tensor]
"""An elementwise function that may overwrite its argument."""

_CACHE_FLOATS, _DEVICE_FLOATS = 2**16, 2**24


def wide(tensor: Tensor) -> Tensor:
    """In float32 at least."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _blocks(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Iterator[tuple[slice, Tensor]]:
    """Images [i, j) of x and their patches [j - i, K, P*Q], a few at a time."""
    num_floats = _CACHE_FLOATS if x.device.type == "cpu" else _DEVICE_FLOATS
    _, _, p, q = output_shape(x, weight, stride, padding, dilation)
    step = max(1, num_floats // (weight[0].numel() * p * q))
    for start in range(0, x.shape[0], step):
        images = slice(start, start + step)
        patches = F.unfold(
            wide(x[images]), tuple(weight.shape[2:]), dilation=tuple(dilation), padding=tuple(padding),
            stride=tuple(stride),
        )  # fmt: skip
        yield images, patches


def response(
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    *,
    magnitude: InPlace,
    offset_free: bool,
) -> Tensor:
    """-sum magnitude(X - F), with `offset_free` plus sum magnitude(F). x_nchw, w_ocrs -> y_nopq."""
    shape = output_shape(x, weight, stride, padding, dilation)
    filters = wide(weight).flatten(1)
    y_nom = filters.new_empty(shape[0], shape[1], shape[2] * shape[3])
    for images, patches in _blocks(x, weight, stride, padding, dilation):
        buffer = torch.empty_like(patches)
        for o, w_k in enumerate(filters):
            distance = magnitude(torch.sub(patches, w_k.unsqueeze(1), out=buffer))
            y_nom[images, o] = -distance.sum(1)
    if offset_free:
        y_nom += magnitude(filters.clone()).sum(1).unsqueeze(1)
    return empty_like_input(shape, x).copy_(y_nom.view(shape))


def grad_input(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, *, slope: InPlace
) -> Tensor:
    """sum dY * slope(F - X). dy_nopq, x_nchw, w_ocrs -> dx_nchw."""
    filters, dy_nom = wide(weight).flatten(1), wide(dy).flatten(2)
    dx = empty_like_input(x.shape, x)
    for images, patches in _blocks(x, weight, stride, padding, dilation):
        buffer, dx_patches = torch.empty_like(patches), torch.zeros_like(patches)
        for o, w_k in enumerate(filters):
            difference = torch.sub(w_k.unsqueeze(1), patches, out=buffer)
            dx_patches.addcmul_(slope(difference), dy_nom[images, o : o + 1])
        dx[images] = F.fold(
            dx_patches, tuple(x.shape[2:]), tuple(weight.shape[2:]), dilation=tuple(dilation),
            padding=tuple(padding), stride=tuple(stride),
        ).to(dx.dtype)  # fmt: skip
    return dx


def grad_weight(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, *, slope: InPlace
) -> Tensor:
    """sum dY * slope(X - F). dy_nopq, x_nchw, w_ocrs -> dw_ocrs."""
    filters, dy_nom = wide(weight).flatten(1), wide(dy).flatten(2)
    dw = torch.zeros_like(filters)
    for images, patches in _blocks(x, weight, stride, padding, dilation):
        buffer = torch.empty_like(patches)
        for o, w_k in enumerate(filters):
            difference = slope(torch.sub(patches, w_k.unsqueeze(1), out=buffer))
            dw[o] += (difference @ dy_nom[images, o].unsqueeze(2)).sum((0, 2))
    return torch.empty_like(weight).copy_(dw.view(weight.shape))
