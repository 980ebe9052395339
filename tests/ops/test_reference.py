"""The oracle itself: against literal loops over every index, and against the formula that everybody knows."""

import itertools

import pytest
import torch
from torch import Tensor

from addertrain.ops import reference
from tests.ops.answers import Data, data_of
from tests.ops.layers import TABLE, Layer

TINY = [
    Layer(2, 2, 3, 4, 5, 3, 2, padding=(1, 0)),
    Layer(1, 3, 2, 5, 4, 2, 2, (2, 1), (0, 1), (1, 2)),
    Layer(2, 1, 2, 4, 4, 1, 1, (3, 2), (1, 3)),
    Layer(1, 2, 1, 6, 5, 3, 3, (2, 2), (1, 1), (2, 2)),
]


def _tap(layer: Layer, p: int, q: int, r: int, s: int) -> tuple[int, int]:
    h = p * layer.stride[0] + r * layer.dilation[0] - layer.padding[0]
    v = q * layer.stride[1] + s * layer.dilation[1] - layer.padding[1]
    return h, v


def _loops(layer: Layer, data: Data) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Eq. 2, the same + sum|F|, Eq. 6 and Eq. 5, one number at a time."""
    x, w, dy = data.x.tolist(), data.w.tolist(), data.dy.tolist()
    y, offset_free = torch.zeros_like(data.dy), torch.zeros_like(data.dy)
    dx, dw = torch.zeros_like(data.x), torch.zeros_like(data.w)
    p_q = layer.output
    outputs = itertools.product(range(layer.N), range(layer.O), range(p_q[0]), range(p_q[1]))
    taps = list(itertools.product(range(layer.C), range(layer.R), range(layer.S)))
    for n, o, p, q in outputs:
        for c, r, s in taps:
            h, v = _tap(layer, p, q, r, s)
            is_inside = 0 <= h < layer.H and 0 <= v < layer.W
            x_tap, w_tap, g = (x[n][c][h][v] if is_inside else 0.0), w[o][c][r][s], dy[n][o][p][q]
            y[n, o, p, q] -= abs(x_tap - w_tap)
            offset_free[n, o, p, q] += abs(w_tap) - abs(x_tap - w_tap)
            dw[o, c, r, s] += g * (x_tap - w_tap)
            if is_inside:
                dx[n, c, h, v] += g * max(-1.0, min(1.0, w_tap - x_tap))
    return y, offset_free, dx, dw


@pytest.mark.parametrize("layer", TINY, ids=str)
def test_reference_is_the_paper_letter_by_letter(layer: Layer) -> None:
    data = data_of(layer, torch.float64)
    y, offset_free, dx, dw = _loops(layer, data)

    got = (
        reference.adder2d(data.x, data.w, *layer.sizes, False),
        reference.adder2d(data.x, data.w, *layer.sizes, True),
        reference.adder2d_grad_input(data.dy, data.x, data.w, *layer.sizes),
        reference.adder2d_grad_weight(data.dy, data.x, data.w, *layer.sizes),
    )

    for ours, literal in zip(got, (y, offset_free, dx, dw), strict=True):
        torch.testing.assert_close(ours, literal, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("layer", TABLE["drawn"][:20], ids=str)
def test_reference_is_the_broadcast_formula(layer: Layer) -> None:
    data = data_of(layer, torch.float64)
    columns = torch.nn.functional.unfold(
        data.x, data.w.shape[2:], stride=layer.stride, padding=layer.padding, dilation=layer.dilation
    )
    formula = -(data.w.flatten(1).unsqueeze(2) - columns.unsqueeze(1)).abs().sum(2)

    y = reference.adder2d(data.x, data.w, *layer.sizes, False)

    torch.testing.assert_close(y, formula.view(y.shape), rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("layer", TABLE["drawn"][:20], ids=str)
def test_offset_free_is_the_response_plus_the_filters_norm(layer: Layer) -> None:
    data = data_of(layer, torch.float64)

    raw = reference.adder2d(data.x, data.w, *layer.sizes, False)
    offset_free = reference.adder2d(data.x, data.w, *layer.sizes, True)

    norm = data.w.abs().sum((1, 2, 3)).view(1, -1, 1, 1)
    torch.testing.assert_close(offset_free, raw + norm, rtol=1e-13, atol=1e-12)


def test_filter_gradient_is_the_derivative_of_half_the_squared_distance() -> None:
    """Eq. 5 is d/dF of -sum (X - F)^2 / 2: autograd agrees, taps under the padding included."""
    layer = Layer(2, 3, 4, 6, 5, 3, 3, (2, 1), (1, 1))
    data = data_of(layer, torch.float64)
    w = data.w.clone().requires_grad_()
    columns = torch.nn.functional.unfold(data.x, (3, 3), stride=layer.stride, padding=layer.padding)
    squared = -(columns.unsqueeze(1) - w.flatten(1).unsqueeze(2)).square().sum(2) / 2
    squared.backward(data.dy.flatten(2))

    dw = reference.adder2d_grad_weight(data.dy, data.x, data.w, *layer.sizes)

    torch.testing.assert_close(dw, w.grad, rtol=1e-13, atol=1e-12)
