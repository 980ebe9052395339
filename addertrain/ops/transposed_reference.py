"""The transposed adder layer written out, tap by tap: the oracle of its tests.

    Y[n,o,i*u + r*e - a]  adds  -|X[n,c,i] - F[c,o,r]|       for every pixel i, outside the image too (X = 0)
    dF[c,o,r]   = sum_{n,i} dY[n,o,i*u + r*e - a] * (X[n,c,i] - F[c,o,r])                              (Eq. 5)
    dX[n,c,i]   = sum_{o,r} dY[n,o,i*u + r*e - a] * HT(F[c,o,r] - X[n,c,i])                            (Eq. 6)

and the same along the other axis. Computes in float64; one tap and one group at a time.
"""

from collections.abc import Iterator
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from addertrain.ops.transposed import Transposition


def response(x: Tensor, weight: Tensor, geometry: Transposition, groups: int, *, offset_free: bool) -> Tensor:
    """y_nopq of x_nchw and filters (C, O/G, R, S)."""
    filters = weight.shape[1]
    shape = (x.shape[0], groups * filters, *geometry.output(x.shape[2:]))
    # Positions of an output that is large enough for all pixels; those of the result lie in its middle.
    wide, rows, columns = _frame(x, geometry, shape)
    for pixels, w, channels, place in _taps(x, weight, geometry, groups):
        terms = -(pixels.unsqueeze(2) - w).abs() + (w.abs() if offset_free else 0.0)
        wide[:, channels, place[0], place[1]] += terms.sum(1)
    return wide[:, :, rows, columns]


def gradients(
    x: Tensor, weight: Tensor, grad_y: Tensor, geometry: Transposition, groups: int
) -> tuple[Tensor, Tensor]:
    """(dX, dF) for dY = grad_y."""
    wide, rows, columns = _frame(x, geometry, grad_y.shape)
    wide[:, :, rows, columns] = grad_y.double()
    margin = _margin(geometry)
    grad_x, grad_w = torch.zeros_like(F.pad(x.double(), (margin,) * 4)), torch.zeros_like(weight.double())
    in_group = x.shape[1] // groups
    taps = product(range(groups), range(weight.shape[2]), range(weight.shape[3]))
    for (g, r, s), (pixels, w, channels, place) in zip(taps, _taps(x, weight, geometry, groups), strict=True):
        dy = wide[:, channels, place[0], place[1]].unsqueeze(1)
        inputs = slice(g * in_group, (g + 1) * in_group)
        difference = w - pixels.unsqueeze(2)
        grad_w[inputs, :, r, s] = -(dy * difference).sum((0, 3, 4))
        grad_x[:, inputs] += (dy * difference.clamp(-1, 1)).sum(2)
    return grad_x[:, :, margin:-margin, margin:-margin], grad_w


def _margin(geometry: Transposition) -> int:
    """Pixels outside the image that reach an output."""
    reach = [e * (taps - 1) for taps, e in zip(geometry.kernel, geometry.dilation, strict=True)]
    return max(reach) + max(geometry.output_padding) + 1


def _taps(
    x: Tensor, weight: Tensor, geometry: Transposition, groups: int
) -> Iterator[tuple[Tensor, Tensor, slice, tuple[slice, slice]]]:
    """For each group and tap: the group's pixels [N, C/G, H, W], filters, outputs, and where they lie."""
    margin = _margin(geometry)
    pixels = F.pad(x.double(), (margin,) * 4)
    u, v = geometry.stride
    height, width = pixels.shape[2:]
    for g, r, s in product(range(groups), range(weight.shape[2]), range(weight.shape[3])):
        channels = slice(g * weight.shape[1], (g + 1) * weight.shape[1])
        down, right = r * geometry.dilation[0], s * geometry.dilation[1]
        place = (slice(down, down + (height - 1) * u + 1, u), slice(right, right + (width - 1) * v + 1, v))
        w = weight.double().chunk(groups)[g][None, :, :, r, s, None, None]
        yield pixels.chunk(groups, 1)[g], w, channels, place


def _frame(x: Tensor, geometry: Transposition, shape: tuple[int, ...]) -> tuple[Tensor, slice, slice]:
    """Zeros for all outputs of the padded image, and where the outputs of the layer lie."""
    margin = _margin(geometry)
    sizes, places = [], []
    for axis in (0, 1):
        u, a = geometry.stride[axis], geometry.padding[axis]
        reach = geometry.dilation[axis] * (geometry.kernel[axis] - 1)
        sizes.append((x.shape[2 + axis] + 2 * margin - 1) * u + reach + 1)
        places.append(slice(margin * u + a, margin * u + a + shape[2 + axis]))
    return torch.zeros(*shape[:2], *sizes, dtype=torch.float64), places[0], places[1]
