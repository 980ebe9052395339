"""The other variants of the layer against the broadcast formula in float64: powers, signs, slopes."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import fold, unfold

from addertrain.ops import schemas
from addertrain.ops.functional import adder2d
from addertrain.ops.variants import Variant
from addertrain.ops.variants_power import ADDER2D_NORM, GRAD_INPUT, GRAD_WEIGHT
from addertrain.ops.variants_surrogate import ADDER2D_SURROGATE, GRAD_INPUT_SLOPE, GRAD_WEIGHT_SIGN
from tests.ops.answers import Data, data_of
from tests.ops.layers import Layer

LAYERS = [
    Layer(2, 3, 5, 9, 8, 3, 3, (1, 1), (1, 1)),
    Layer(2, 3, 5, 8, 13, 3, 3, (2, 2), (1, 1)),
    Layer(3, 4, 7, 7, 6, 2, 3, (2, 1), (0, 2), (2, 1)),
    Layer(4, 20, 6, 1, 1, 1, 1),
    Layer(2, 9, 33, 5, 5, 1, 1, (2, 2)),
    Layer(0, 3, 5, 7, 6, 3, 3),
]
POWERS = [2.0, 1.5, 1.0, 1.01]
SLOPES = [math.inf, 4.0, 0.3]


def _differences(layer: Layer, data: Data) -> Tensor:
    """F - X of every pair, [N, O, K, P*Q] in float64."""
    p, q = layer.output
    if layer.N == 0:
        return torch.zeros(0, layer.O, layer.C * layer.R * layer.S, p * q, dtype=torch.float64)
    patches = unfold(
        data.x, (layer.R, layer.S), stride=layer.stride, padding=layer.padding, dilation=layer.dilation
    )
    return data.w.flatten(1)[None, :, :, None] - patches[:, None]


def _fold(layer: Layer, dx_patches: Tensor) -> Tensor:
    if layer.N == 0:
        return torch.zeros(0, layer.C, layer.H, layer.W, dtype=torch.float64)
    return fold(
        dx_patches, (layer.H, layer.W), (layer.R, layer.S), stride=layer.stride, padding=layer.padding,
        dilation=layer.dilation,
    )  # fmt: skip


def _expected(
    layer: Layer,
    data: Data,
    input_slope: Callable[[Tensor], Tensor],
    filter_slope: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """dX and dF for the functions of F - X and of X - F that stand in Eq. 6 and Eq. 5."""
    difference, dy = _differences(layer, data), data.dy.flatten(2).unsqueeze(2)
    dx = _fold(layer, (dy * input_slope(difference)).sum(1))
    return dx, (dy * filter_slope(-difference)).sum((0, 3)).view(data.w.shape)


def _close(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """In 16 bits a result is rounded once; powers in float32 by log2 and exp2 are good to about 1e-6 each."""
    assert got.dtype == dtype
    rounding = {torch.float64: 1e-13, torch.float32: 4e-6, torch.bfloat16: 2.0**-8}[dtype]
    scale = expected.abs().max().item() if expected.numel() else 1.0
    torch.testing.assert_close(got.double(), expected, rtol=rounding, atol=rounding * max(scale, 1.0))


def _data(layer: Layer, dtype: torch.dtype, layout: torch.memory_format) -> Data:
    data = data_of(layer, dtype)
    return Data(*(t.contiguous(memory_format=layout) for t in (data.x, data.w, data.dy)))


CASES = [
    (torch.float32, torch.contiguous_format),
    (torch.float32, torch.channels_last),
    (torch.float64, torch.contiguous_format),
    (torch.bfloat16, torch.channels_last),
]


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_powers_match_the_formula(layer: Layer, p: float) -> None:
    for dtype, layout in CASES:
        data = _data(layer, dtype, layout)
        exact = data.double()
        distance = _differences(layer, exact).abs().pow(p)
        shape = data.dy.shape
        offset = exact.w.abs().pow(p).sum((1, 2, 3)).view(-1, 1, 1)

        def slope(d: Tensor) -> Tensor:
            return p * d.abs().pow(p - 1) * d.sign()

        dx, dw = _expected(layer, exact, slope, slope)
        y = -distance.sum(2).view(shape)

        _close(ADDER2D_NORM(data.x, data.w, *layer.sizes, False, p), y, dtype)
        _close(ADDER2D_NORM(data.x, data.w, *layer.sizes, True, p), y + offset, dtype)
        _close(GRAD_INPUT(data.dy, data.x, data.w, *layer.sizes, p), dx, dtype)
        _close(GRAD_WEIGHT(data.dy, data.x, data.w, *layer.sizes, p), dw, dtype)


@pytest.mark.parametrize("p", [2.0, 1.5])
def test_the_formulas_gradients_are_the_derivatives(p: float) -> None:
    layer = LAYERS[1]
    data = data_of(layer, torch.float64)
    x, w = data.x.clone().requires_grad_(), data.w.clone().requires_grad_()
    y = -_differences(layer, Data(x, w, data.dy)).abs().pow(p).sum(2)
    y.backward(data.dy.flatten(2))

    _close(GRAD_INPUT(data.dy, data.x, data.w, *layer.sizes, p), x.grad, torch.float64)
    _close(GRAD_WEIGHT(data.dy, data.x, data.w, *layer.sizes, p), w.grad, torch.float64)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_signs_and_slopes_match_the_formula(layer: Layer) -> None:
    for dtype, layout in CASES:
        data = _data(layer, dtype, layout)
        for slope in SLOPES:
            clip = torch.sign if math.isinf(slope) else lambda d: (slope * d).clamp(-1, 1)  # noqa: B023
            dx, dw = _expected(layer, data.double(), clip, torch.sign)

            _close(GRAD_INPUT_SLOPE(data.dy, data.x, data.w, *layer.sizes, slope), dx, dtype)
            _close(GRAD_WEIGHT_SIGN(data.dy, data.x, data.w, *layer.sizes), dw, dtype)


def test_where_input_and_filter_are_equal_the_sign_is_zero() -> None:
    x, w, dy = torch.full((2, 3, 4, 4), 0.7), torch.full((5, 3, 3, 3), 0.7), torch.ones(2, 5, 2, 2)
    sizes = ([1, 1], [0, 0], [1, 1])

    for p in (1.0, 1.5, 2.0):
        assert GRAD_INPUT(dy, x, w, *sizes, p).abs().max() < 1e-5
        assert GRAD_WEIGHT(dy, x, w, *sizes, p).abs().max() < 1e-5
    assert torch.equal(GRAD_INPUT_SLOPE(dy, x, w, *sizes, math.inf), torch.zeros_like(x))
    assert torch.equal(GRAD_WEIGHT_SIGN(dy, x, w, *sizes), torch.zeros_like(w))


def test_opcheck() -> None:
    layer = LAYERS[0]
    data = data_of(layer, torch.float32)
    x, w = (t.clone().requires_grad_() for t in (data.x, data.w))

    for p in (1.5, 2.0):
        torch.library.opcheck(ADDER2D_NORM.default, (x, w, *layer.sizes, True, p))
    torch.library.opcheck(ADDER2D_SURROGATE.default, (x, w, *layer.sizes, True, True, math.inf))
    arguments = (data.dy, data.x, data.w, *layer.sizes)
    torch.library.opcheck(GRAD_INPUT.default, (*arguments, 1.5))
    torch.library.opcheck(GRAD_WEIGHT.default, (*arguments, 1.5))
    torch.library.opcheck(GRAD_INPUT_SLOPE.default, (*arguments, 3.0))
    torch.library.opcheck(GRAD_WEIGHT_SIGN.default, arguments)


FORMS: list[tuple[dict[str, Any], Any, Any]] = [
    ({}, schemas.GRAD_INPUT, schemas.GRAD_WEIGHT),
    ({"filter_gradient": "sign"}, schemas.GRAD_INPUT, GRAD_WEIGHT_SIGN),
    ({"input_gradient": "sign"}, lambda *a: GRAD_INPUT_SLOPE(*a, math.inf), schemas.GRAD_WEIGHT),
    (
        {"input_gradient": "ht_scaled", "input_slope": 4.0, "filter_gradient": "sign"},
        lambda *a: GRAD_INPUT_SLOPE(*a, 4.0),
        GRAD_WEIGHT_SIGN,
    ),
    ({"p": 1.25}, lambda *a: GRAD_INPUT(*a, 1.25), lambda *a: GRAD_WEIGHT(*a, 1.25)),
]


@pytest.mark.parametrize(
    ("settings", "grad_input", "grad_weight"), FORMS, ids=[str(settings) for settings, _, _ in FORMS]
)
def test_a_form_trains_with_its_gradients(
    settings: dict[str, Any], grad_input: Any, grad_weight: Any
) -> None:
    layer = LAYERS[0]
    data = data_of(layer, torch.float32)
    x, w = (t.clone().requires_grad_() for t in (data.x, data.w))

    y = Variant(**settings).adder2d(x, w, layer.stride, layer.padding, layer.dilation, True)
    y.backward(data.dy)

    if "p" not in settings:
        assert torch.equal(y, adder2d(data.x, data.w, layer.stride, layer.padding, offset_free=True))
    assert torch.equal(x.grad, grad_input(data.dy, data.x, data.w, *layer.sizes))
    assert torch.equal(w.grad, grad_weight(data.dy, data.x, data.w, *layer.sizes))


def test_forms_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected p from 1 to 2, got 0\.5"):
        Variant(p=0.5)
    with pytest.raises(ValueError, match=r"expected a finite input_slope above 0.*set input_gradient"):
        Variant(input_slope=math.inf)
    with pytest.raises(ValueError, match="C=3 input channels"):
        Variant(p=1.5).adder2d(torch.zeros(1, 3, 4, 4), torch.zeros(2, 4, 1, 1))


@pytest.mark.parametrize("variant", [Variant(p=1.5), Variant(input_gradient="sign")], ids=["p", "sign"])
def test_autocast_and_second_derivatives(variant: Variant) -> None:
    x, w = torch.randn(2, 3, 5, 5, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)

    with torch.autocast("cpu", torch.bfloat16):
        y = variant.adder2d(x, w, offset_free=True)
    assert y.dtype == (torch.float32 if variant.p > 1 else torch.bfloat16)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32

    (dx,) = torch.autograd.grad(variant.adder2d(x, w).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="expected to be differentiated once"):
        dx.sum().backward()


@pytest.mark.parametrize("variant", [Variant(p=1.5), Variant(filter_gradient="sign")], ids=["p", "sign"])
def test_compiles_into_one_graph(variant: Variant) -> None:
    x, w = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3, requires_grad=True)
    compiled = torch.compile(variant.adder2d, fullgraph=True, backend="aot_eager")

    y = compiled(x, w, 2, 1)
    y.square().sum().backward()

    torch.testing.assert_close(y, variant.adder2d(x, w, 2, 1))
