"""GPUs' kernels with the p-th power of the distance, 1 < p < 2, emulated and compared with float64.

Tiles in float32, the direct kernel for everything else. The emulator has this machine's logarithm and
exponential, which are more exact than a GPU's (docs/cuda.md).
"""

import pytest
import torch
from torch import Tensor

from addertrain.ops.power_answers import (
    power_grad_input_answer,
    power_grad_weight_answer,
    power_response_answer,
)
from tests.kernels.emulated import EmulatedKernels
from tests.ops.answers import data_of
from tests.ops.implementations import name_of
from tests.ops.layers import TABLE, Layer
from tests.ops.test_table import mistake

POWERS = (1.5, 1.003, 1.97)
OTHER_TYPES = (torch.float64, torch.float16, torch.bfloat16)
SMALLEST = 2.0**-126
TILED = Layer(2, 24, 40, 6, 7, 3, 3, (2, 1), (1, 1))
DEPTHWISE = Layer(2, 10, 10, 6, 7, 3, 3, (2, 1), (1, 1), groups=10)
BOTH = pytest.mark.parametrize("layer", [TILED, DEPTHWISE], ids=["tiles", "direct kernel"])


def _mistakes(emulator: EmulatedKernels, layer: Layer, index: int, dtype: torch.dtype) -> list[str]:
    """Of both passes, in a layout and with a power that take turns."""
    p, is_last = POWERS[index % 3], index % 2 == 1
    data = data_of(layer, dtype)
    format_ = torch.channels_last if is_last else torch.contiguous_format
    dy, x = (t.to(memory_format=format_) for t in (data.dy, data.x))
    y = emulator.forward(layer, x, data.w, is_last, power=p)
    dx = emulator.grad_input(layer, dy, x, data.w, power=p)
    if layer.N == 0:
        return []
    expected = power_response_answer(x, data.w, layer.sizes, p=p, offset_free=is_last)
    of_x = power_grad_input_answer(dy, x, data.w, layer.sizes, p=p)
    found = [
        mistake(y, expected, layer, f"response, p = {p}"),
        mistake(dx, of_x, layer, f"input gradient, p = {p}"),
    ]
    return [one for one in found if one]


@pytest.mark.parametrize("group", TABLE)
def test_float32_over_the_table(emulator: EmulatedKernels, group: str) -> None:
    """Every layer of the tiles, every fifth of the direct kernel."""
    tiled = [layer for layer in TABLE[group] if EmulatedKernels.serves(layer)]
    direct = [layer for layer in TABLE[group] if not EmulatedKernels.serves(layer)]
    found = [
        one
        for index, layer in enumerate([*tiled, *direct[::5]])
        for one in _mistakes(emulator, layer, index, torch.float32)
    ]

    assert not found, "\n".join(found[:20])


@pytest.mark.parametrize("dtype", OTHER_TYPES, ids=name_of)
def test_other_types_take_the_direct_kernel(emulator: EmulatedKernels, dtype: torch.dtype) -> None:
    layers = [layer for group in TABLE.values() for layer in group][OTHER_TYPES.index(dtype) :: 30]
    found = [one for i, layer in enumerate(layers) for one in _mistakes(emulator, layer, i, dtype)]

    assert not found, "\n".join(found[:20])


@pytest.mark.parametrize("layer", [TILED, DEPTHWISE, Layer(1, 6, 9, 5, 4, 1, 1)], ids=str)
def test_the_filter_gradient_by_an_exchange_of_roles(emulator: EmulatedKernels, layer: Layer) -> None:
    data = data_of(layer, torch.float32)
    for p in POWERS:
        dw = emulator.power_grad_weight(layer, data.dy, data.x, data.w, p)
        expected = power_grad_weight_answer(data.dy, data.x, data.w, layer.sizes, p=p)
        assert mistake(dw, expected, layer, f"filter gradient, p = {p}") is None


@BOTH
@pytest.mark.parametrize("p", [1.0005, 1.5, 1.9995])
def test_where_x_is_w_nothing_is_added(emulator: EmulatedKernels, layer: Layer, p: float) -> None:
    """The logarithm of 0 is -inf and its power 0; nor is there a slope."""
    data = data_of(layer, torch.float32)
    x, w = torch.full_like(data.x, 0.7), torch.full_like(data.w, 0.7)
    unpadded = Layer(2, layer.C, layer.O, 6, 7, 3, 3, (2, 1), groups=layer.groups)
    dy = data_of(unpadded, torch.float32).dy

    assert (emulator.forward(unpadded, x, w, power=p) == 0).all()
    assert (emulator.grad_input(unpadded, dy, x, w, power=p) == 0).all()


@BOTH
@pytest.mark.parametrize("p", [1 + 2.0**-11, 1.3125, 2 - 2.0**-11])  # float32 holds them
def test_an_element_over_the_whole_range(emulator: EmulatedKernels, layer: Layer, p: float) -> None:
    """Off by docs/cuda.md's (1 + 0.7 p max(1, |log2 d|)) 2^-22 at most; denormal numbers count as 0."""
    channels = 1 if layer is TILED else 2
    bits = torch.arange(0, 2**31 - 2**23, 1_500_013, dtype=torch.int64)  # a prime: every part of a mantissa
    d = bits.to(torch.int32).view(torch.float32)
    x = d.view(1, 1, -1, 1).expand(1, channels, -1, 1).contiguous()
    one_pixel = Layer(1, channels, channels, len(d), 1, 1, 1, groups=channels)
    w = torch.zeros(channels, 1, 1, 1)
    y = emulator.forward(one_pixel, x, w, power=p)[0, -1].flatten()
    dx = emulator.grad_input(one_pixel, torch.ones_like(x), x, w, power=p)[0, -1].flatten()

    wide = d.double()
    for got, expected, exponent in ((y, -wide.pow(p), p), (dx, -p * wide.pow(p - 1), p - 1)):
        size = expected.abs()
        normal = (d >= SMALLEST) & (size >= SMALLEST) & (size < 2.0**127)
        bound = (1 + 0.7 * exponent * wide.log2().abs().clamp(min=1)) * 2.0**-22
        assert (((got.double() - expected) / expected).abs() <= bound)[normal].all()
        assert (got[d < SMALLEST] == 0).all()
    assert (y[wide.pow(p) > 2.0**129] == -torch.inf).all()


@BOTH
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("operand", [0, 1, 2], ids=["dy", "x", "w"])
def test_what_is_not_finite_stays_so(
    emulator: EmulatedKernels, layer: Layer, value: float, operand: int
) -> None:
    given = data_of(layer, torch.float32)
    dy, x, w = (t.clone() for t in (given.dy, given.x, given.w))
    (dy, x, w)[operand].flatten()[37] = value
    y = emulator.forward(layer, x, w, power=1.5)
    dx = emulator.grad_input(layer, dy, x, w, power=1.5)

    expected = power_response_answer(x, w, layer.sizes, p=1.5, offset_free=False).value
    of_x = power_grad_input_answer(dy.double(), x.double(), w.double(), layer.sizes, p=1.5).value
    assert torch.equal(y.isfinite(), expected.isfinite())
    assert not dx.isfinite()[~of_x.isfinite()].any()
    if operand == 2:  # it may reach the gradients of its whole channel
        of_x = of_x.sum((0, 2, 3), keepdim=True).expand_as(dx)
    assert dx.isfinite()[of_x.isfinite()].all()


def test_an_order_of_threads_changes_no_bit(emulator: EmulatedKernels) -> None:
    data = data_of(TILED, torch.float32)

    def results() -> list[Tensor]:
        y = emulator.forward(TILED, data.x, data.w, True, power=1.4)
        return [y, emulator.grad_input(TILED, data.dy, data.x, data.w, power=1.4)]

    expected = results()
    try:
        emulator.library.set_emulator(True, True)
        assert all(torch.equal(a, b) for a, b in zip(results(), expected, strict=True))
    finally:
        emulator.library.set_emulator(False, False)
