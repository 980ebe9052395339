"""The GPU kernel of depthwise layers (kernels/device/depthwise.h), emulated, and which layers it serves."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from addertrain.ops import reference
from tests.kernels.emulated import EmulatedKernels
from tests.kernels.host import HostKernels
from tests.ops.answers import Data, data_of, forward_answer, grad_input_answer, grad_input_answer_of
from tests.ops.implementations import name_of
from tests.ops.layers import Layer
from tests.ops.test_table import mistake

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
in_every_type = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)


def _layer(n: int, channels: int, h: int, w: int, taps: int, stride: int = 1, padding: int = 1) -> Layer:
    pair = (stride, stride)
    return Layer(n, channels, channels, h, w, taps, taps, pair, (padding, padding), groups=channels)


LAYERS = [
    *(_layer(2, 4, 9, columns, 3) for columns in range(1, 10)),
    *(_layer(1, 4, rows, 6, 3, stride, 0) for rows in range(3, 9) for stride in (1, 2)),
    *(_layer(2, 16, 9, 8, taps, stride, taps // 2) for taps in (3, 5, 7) for stride in (1, 2)),
    _layer(2, 132, 5, 6, 3),  # 33 vectors of channels: two blocks side by side, of 17 and 16
    _layer(1, 264, 4, 5, 5, 2, 2),
    _layer(3, 12, 10, 11, 7, padding=0),
    _layer(2, 8, 3, 4, 3, padding=5),  # some results see the padding alone
    *(
        replace(_layer(1, 8, 9, 10, taps, 2), padding=padding)
        for taps in (3, 5)
        for padding in ((0, 1), (1, 2), (2, 3), (6, 5))
    ),
    _layer(35, 24, 1, 1, 3),
]
DIRECT = [
    _layer(2, 6, 5, 6, 3),  # no vectors of channels
    replace(_layer(2, 8, 5, 6, 3), O=16),
    replace(_layer(2, 8, 5, 6, 3), groups=4),
    replace(_layer(2, 8, 5, 6, 3), S=5),
    replace(_layer(2, 8, 9, 8, 3), dilation=(2, 2)),
    replace(_layer(2, 8, 5, 6, 3), stride=(2, 1)),
    _layer(2, 8, 9, 8, 3, 3),
    _layer(2, 8, 5, 6, 1, padding=0),
    _layer(2, 8, 9, 9, 9, padding=4),
]


def _last(t: Tensor) -> Tensor:
    return torch.empty_like(t, memory_format=torch.channels_last).copy_(t)


def _operands(layer: Layer, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """dY, x and w; images in channels-last."""
    data = data_of(layer, dtype)
    return _last(data.dy), _last(data.x), data.w


def _has_launched(emulator: EmulatedKernels) -> bool:
    """Whether the last launch was this kernel's; the direct kernel has blocks of 256 threads."""
    threads = emulator.library.threads_of_last_launch()
    assert threads in (128, 256)
    return bool(threads == 128)


def _serves(
    emulator: EmulatedKernels, layer: Layer, dy: Tensor, x: Tensor, w: Tensor, power: float = 1.0
) -> tuple[bool, bool]:
    """Whether it computes the response, and the input gradient."""
    emulator.forward(layer, x, w, power=power)
    is_forward = _has_launched(emulator)
    emulator.grad_input(layer, dy, x, w, power=power)
    return is_forward, _has_launched(emulator)


@in_every_type
def test_the_response_is_that_of_the_direct_kernel(
    emulator: EmulatedKernels, host_kernels: HostKernels, dtype: torch.dtype
) -> None:
    """Bit for bit: the terms and the order of their sums are the same."""
    for layer, offset_free in itertools.product(LAYERS, (False, True)):
        _, x, w = _operands(layer, dtype)
        y = emulator.forward(layer, x, w, offset_free)
        assert _has_launched(emulator), layer
        assert mistake(y, forward_answer(layer, dtype, offset_free), layer, "channels-last") is None
        assert torch.equal(y, host_kernels.forward(layer, x, w, offset_free)), layer


@in_every_type
def test_the_input_gradient_matches_float64(emulator: EmulatedKernels, dtype: torch.dtype) -> None:
    for layer in LAYERS:
        dy, x, w = _operands(layer, dtype)
        dx = emulator.grad_input(layer, dy, x, w)
        assert _has_launched(emulator), layer
        assert mistake(dx, grad_input_answer(layer, dtype, True), layer, "channels-last") is None


@pytest.mark.parametrize("layer", DIRECT, ids=str)
def test_the_direct_kernel_keeps_other_layers(emulator: EmulatedKernels, layer: Layer) -> None:
    assert _serves(emulator, layer, *_operands(layer, torch.float32)) == (False, False)


def test_the_direct_kernel_keeps_other_types_and_places(emulator: EmulatedKernels) -> None:
    layer = _layer(2, 8, 5, 6, 3)
    dy, x, w = _operands(layer, torch.float16)
    assert _serves(emulator, layer, dy, x, w) == (True, True)

    shifted = x.new_empty(2, 5, 6, 11)[..., 2:10].permute(0, 3, 1, 2)  # vectors that are not aligned
    far = torch.empty(2**31 + 240, dtype=x.dtype).as_strided(x.shape, (2**31, *x.stride()[1:]))
    for other in (x.contiguous(), shifted.copy_(x), far.copy_(x)):
        assert _serves(emulator, layer, dy, other, w) == (False, False)
    assert _serves(emulator, layer, dy.contiguous(), x, w) == (True, False)
    assert _serves(emulator, layer, *_operands(layer, torch.float64)) == (False, False)
    assert _serves(emulator, layer, dy, x, w, 1.5) == (False, False)


@in_every_type
def test_slices_are_read_and_written_in_place(emulator: EmulatedKernels, dtype: torch.dtype) -> None:
    """Four of twelve channels and more, of a part of an image; NaN lies around it."""
    for layer in (_layer(2, 8, 9, 7, 3), _layer(2, 8, 9, 7, 5, padding=1)):
        dy, x, w = _operands(layer, dtype)
        y, dx = emulator.forward(layer, x, w, True), emulator.grad_input(layer, dy, x, w)

        def inside(t: Tensor) -> Tensor:
            n, c, h, width = t.shape
            larger = torch.full((n, h + 2, width + 3, c + 8), torch.nan, dtype=t.dtype)
            return larger.permute(0, 3, 1, 2)[:, 4 : 4 + c, 1:-1, 2:-1].copy_(t)

        dy, x, w = inside(dy), inside(x), inside(w)
        assert _serves(emulator, layer, dy, x, w) == (True, True)
        assert torch.equal(emulator.forward(layer, x, w, True), y)
        assert torch.equal(emulator.grad_input(layer, dy, x, w), dx)


def test_orders_of_threads_change_no_bit(emulator: EmulatedKernels) -> None:
    layer = _layer(2, 24, 9, 8, 3)
    dy, x, w = _operands(layer, torch.float32)
    expected = emulator.forward(layer, x, w, True), emulator.grad_input(layer, dy, x, w)
    try:
        emulator.library.set_emulator(False, True)
        got = emulator.forward(layer, x, w, True), emulator.grad_input(layer, dy, x, w)
    finally:
        emulator.library.set_emulator(False, False)

    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_long_walks_change_no_bit(emulator: EmulatedKernels) -> None:
    """So many images that a thread computes two tiles, one below the other."""
    few, times = _layer(64, 32, 5, 1, 3), 540
    many = replace(few, N=times * few.N)
    dy, x, w = _operands(few, torch.float16)
    y, dx = emulator.forward(few, x, w, True), emulator.grad_input(few, dy, x, w)

    dy, x = (_last(t.repeat(times, 1, 1, 1)) for t in (dy, x))
    assert torch.equal(emulator.forward(many, x, w, True), y.repeat(times, 1, 1, 1))
    assert torch.equal(emulator.grad_input(many, dy, x, w), dx.repeat(times, 1, 1, 1))


@in_every_type
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("operand", [0, 1, 2], ids=["dy", "x", "w"])
def test_what_is_not_finite_stays_where_it_is(
    emulator: EmulatedKernels, dtype: torch.dtype, value: float, operand: int
) -> None:
    layer = _layer(2, 8, 6, 7, 3)
    dy, x, w = (t.clone() for t in _operands(layer, dtype))
    tensor = (dy, x, w)[operand]
    tensor[(0, 5, 3, 2) if operand < 2 else (5, 0, 2, 1)] = value
    wide = [t.double() for t in (dy, x, w)]
    dx = emulator.grad_input(layer, dy, x, w)

    for offset_free in (False, True):
        expected = reference.adder2d(*wide[1:], *layer.sizes, offset_free)
        y = emulator.forward(layer, x, w, offset_free)
        assert torch.equal(y.isfinite(), expected.isfinite())
        assert torch.equal(y.isnan(), expected.isnan())
    expected = reference.adder2d_grad_input(*wide, *layer.sizes)
    assert dx.isnan()[expected.isnan()].all()
    if operand == 2:  # a NaN in a filter may reach the gradients of its channel
        dx, expected = dx[:, [0, 1, 2, 3, 4, 6, 7]], expected[:, [0, 1, 2, 3, 4, 6, 7]]
    assert torch.equal(dx.isfinite(), expected.isfinite())


@in_every_type
def test_infinite_differences_are_clipped(emulator: EmulatedKernels, dtype: torch.dtype) -> None:
    layer = _layer(2, 8, 6, 7, 3)
    dy, x, w = (t.clone() for t in _operands(layer, dtype))
    x[0, 1, 2, 2], x[1, 3, 2, 2], w[2, 0, 1, 1], w[4, 0, 0, 2] = torch.inf, -torch.inf, torch.inf, -torch.inf
    dx = emulator.grad_input(layer, dy, x, w)

    far = Data(x.clamp(-100, 100), w.clamp(-100, 100), dy)  # clipped to the same
    assert mistake(dx, grad_input_answer_of(layer, far, True), layer, "infinities") is None
