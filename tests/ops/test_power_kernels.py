"""The kernels with the p-th power of the distance, 1 < p < 2, on every instruction set against float64."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from addertrain.ops import answers, pairwise
from addertrain.ops.power_answers import (
    power_grad_input_answer,
    power_grad_weight_answer,
    power_response_answer,
)
from addertrain.ops.variants_power import (
    POWER,
    POWER_GRAD_INPUT,
    POWER_GRAD_WEIGHT,
    exchanged_grad_weight,
)
from tests.ops.answers import Data, data_of
from tests.ops.implementations import COMPILED, Implementation, name_of
from tests.ops.layers import TABLE, Layer
from tests.ops.threads import differing
from tests.ranks import on_ranks

POWERS = (1.5, 1.003, 1.97, 1.2)
ONE_PIXEL = ([1, 1], [0, 0], [1, 1])
SMALLEST = 2.0**-126
LAYOUTS = (torch.contiguous_format, torch.channels_last)
LAYERS = [layer for group in TABLE.values() for layer in group if layer.N > 0]

on_every_set = pytest.mark.parametrize("implementation", COMPILED, ids=name_of)


def _every_exponent() -> Tensor:
    """Numbers of every exponent that float32 has, denormal ones too, by their bits."""
    bits = torch.arange(0, 2**31 - 2**23, 15013, dtype=torch.int64)  # a prime: every part of a mantissa
    return bits.to(torch.int32).view(torch.float32)


def _mistakes(layer: Layer, data: Data, p: float) -> Iterator[str | None]:
    arguments = (data.x, data.w, *layer.sizes)
    for offset_free in (False, True):
        y = POWER(*arguments, offset_free, p)
        expected = power_response_answer(data.x, data.w, layer.sizes, p=p, offset_free=offset_free)
        yield answers.mistake(y, expected)
    operands = (data.dy, data.x, data.w)
    dx, dw = (operator(*operands, *layer.sizes, p) for operator in (POWER_GRAD_INPUT, POWER_GRAD_WEIGHT))
    yield answers.mistake(dx, power_grad_input_answer(*operands, layer.sizes, p=p))
    yield answers.mistake(dw, power_grad_weight_answer(*operands, layer.sizes, p=p))


def _laid_out(layer: Layer, dtype: torch.dtype, index: int) -> Data:
    """The layer's data in a layout, behind a ReLU in every other one; filters in a layout of their own."""
    data = data_of(layer, dtype, behind_relu=index % 2 == 1)
    x, dy = (t.to(memory_format=LAYOUTS[index // 2 % 2]) for t in (data.x, data.dy))
    return Data(x, data.w.to(memory_format=LAYOUTS[index // 3 % 2]), dy)


def _compare(implementation: Implementation, layers: list[Layer], dtype: torch.dtype) -> None:
    with implementation.use():
        for index, layer in enumerate(layers):
            p = POWERS[index % len(POWERS)]
            for mistake in _mistakes(layer, _laid_out(layer, dtype, index), p):
                assert mistake is None, f"{layer}, p={p}: {mistake}"


@on_every_set
def test_every_fifteenth_layer_of_the_table(implementation: Implementation) -> None:
    _compare(implementation, LAYERS[::15], torch.float32)


@pytest.mark.long
@on_every_set
def test_every_layer_of_the_table(implementation: Implementation) -> None:
    _compare(implementation, LAYERS, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_types(dtype: torch.dtype) -> None:
    _compare(COMPILED[0], LAYERS[7::60], dtype)


@on_every_set
@pytest.mark.parametrize("p", [1.0005, 1.3, 1.5, 1.9, 1.9995])
def test_an_element_is_good_to_ten_roundings_over_the_whole_range(
    implementation: Implementation, p: float
) -> None:
    d = _every_exponent()
    with implementation.use():
        x = d.view(1, 1, -1, 1)
        y = POWER(x, torch.zeros(1, 1, 1, 1), *ONE_PIXEL, False, p).flatten()
        dx = POWER_GRAD_INPUT(torch.ones_like(x), x, torch.zeros(1, 1, 1, 1), *ONE_PIXEL, p).flatten()
        w = d[::2].view(-1, 1, 1, 1)
        dy = torch.ones(1, len(w), 1, 1)
        dw = POWER_GRAD_WEIGHT(dy, torch.zeros(1, 1, 1, 1), w, *ONE_PIXEL, p).flatten()

    largest = torch.finfo(torch.float32).max
    power, slope = -d.double().pow(p), -p * d.double().pow(p - 1)
    for got, expected, at in ((y, power, d), (dx, slope, d), (dw, slope[::2], d[::2])):
        is_normal = (at >= SMALLEST) & (expected.abs() >= SMALLEST) & (expected.abs() < largest)
        error = ((got.double() - expected) / expected)[is_normal].abs().max().item()
        assert error <= 10 * 2.0**-24, error / 2.0**-24
        # Below the smallest normal number a slope is that of a difference between its half and itself, and
        # what does not fit into a float is infinite.
        assert (got.double()[expected.abs() > largest * (1 + 1e-6)] == -torch.inf).all()
        denormal = (at < SMALLEST) & (at > 0)
        bounds = (power if got is y else slope.new_tensor([SMALLEST]).pow(p - 1) * -p).abs()
        assert (got.double()[denormal].abs() <= bounds.max() * (1 + 1e-6)).all()
    for got in (y, dx, dw):
        assert got[0] == 0
    assert (y[d < SMALLEST].abs() <= SMALLEST).all()
    assert (dx[(d < SMALLEST) & (d > 0)].abs() >= p * (SMALLEST / 2) ** (p - 1) * (1 - 1e-6)).all()


@on_every_set
def test_where_the_input_is_zero_an_offset_free_response_is_exactly_zero(
    implementation: Implementation,
) -> None:
    w = 3 * torch.randn(33, 7, 3, 3, generator=torch.Generator().manual_seed(0))
    with implementation.use():
        y = POWER(torch.zeros(2, 7, 5, 6), w, [1, 1], [1, 1], [1, 1], True, 1.4)

    assert torch.equal(y, torch.zeros_like(y))


@on_every_set
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("operand", [0, 1, 2], ids=["dy", "x", "w"])
def test_what_is_not_finite_stays_so(implementation: Implementation, value: float, operand: int) -> None:
    layer = Layer(2, 17, 18, 8, 9, 3, 3, (2, 2), (1, 0))
    given = data_of(layer, torch.float32)
    dy, x, w = (t.clone() for t in (given.dy, given.x, given.w))
    (dy, x, w)[operand].flatten()[37] = value
    with implementation.use():
        y = POWER(x, w, *layer.sizes, True, 1.5)
        dx, dw = (operator(dy, x, w, *layer.sizes, 1.5) for operator in (POWER_GRAD_INPUT, POWER_GRAD_WEIGHT))

    wide = [t.double() for t in (dy, x, w)]
    expected_y = power_response_answer(x, w, layer.sizes, p=1.5, offset_free=True).value
    expected_dx = power_grad_input_answer(*wide, layer.sizes, p=1.5).value
    expected_dw = power_grad_weight_answer(*wide, layer.sizes, p=1.5).value
    assert torch.equal(y.isfinite(), expected_y.isfinite())
    assert torch.equal(dw.isfinite(), expected_dw.isfinite())
    assert not dx.isfinite()[~expected_dx.isfinite()].any()
    if operand == 2:  # it may reach the gradients of its whole channel
        expected_dx = expected_dx.sum((0, 2, 3), keepdim=True).expand_as(dx)
    assert dx.isfinite()[expected_dx.isfinite()].all()


@pytest.mark.parametrize(
    "layer", [Layer(5, 16, 33, 14, 15, 3, 3, (2, 2), (1, 1)), Layer(9, 70, 40, 6, 6, 1, 1)], ids=str
)
def test_threads_change_no_bit(layer: Layer) -> None:
    data = data_of(layer, torch.float32)
    arguments = (data.x, data.w, *layer.sizes)

    def results() -> list[Tensor]:
        gradients = [operator(data.dy, *arguments, 1.5) for operator in (POWER_GRAD_INPUT, POWER_GRAD_WEIGHT)]
        return [POWER(*arguments, True, 1.5), *gradients]

    assert differing(results) == []


@contextmanager
def _at_most_more(num_bytes: int) -> Iterator[None]:
    """Lets this process take so many bytes from the system, and no more."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _compare_memory() -> None:
    x, w, sizes = torch.randn(1, 1, 2048, 2048), torch.randn(1, 1, 3, 3), ([1, 1], [1, 1], [1, 1])
    POWER(x[:, :, :64], w, *sizes, True, 1.5)  # what a thread allocates once
    result, once = x.numel() * x.element_size(), 8 * 2**20

    with _at_most_more(result + once):
        y = POWER(x, w, *sizes, True, 1.5)
    with _at_most_more(result + once):
        POWER_GRAD_INPUT(y, x, w, *sizes, 1.5)
    with _at_most_more(once):
        POWER_GRAD_WEIGHT(y, x, w, *sizes, 1.5)
    with _at_most_more(result + once), pytest.raises(RuntimeError, match="allocate memory"):
        pairwise.response(x, w, *sizes, p=1.5, offset_free=True)  # which unfolds


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads how much memory a process has")
def test_the_memory_is_that_of_the_result() -> None:
    """One image of 16 MiB, whose patches take 144, in a process of its own: what other tests have freed could
    serve any of them without taking more from the system."""
    on_ranks(1, _compare_memory)


@pytest.mark.parametrize("layer", LAYERS[3::120], ids=str)
def test_the_filter_gradient_by_an_exchange_of_roles(layer: Layer) -> None:
    """As GPUs compute it, here with the CPU's kernel."""
    data = data_of(layer, torch.float32)
    dw = exchanged_grad_weight(data.dy, data.x, data.w, *layer.sizes, 1.5)

    expected = power_grad_weight_answer(data.dy, data.x, data.w, layer.sizes, p=1.5)
    assert answers.mistake(dw, expected) is None


def test_the_gradients_are_the_derivatives_of_the_response() -> None:
    layer = Layer(2, 3, 4, 5, 6, 3, 2, (2, 1), (1, 1), groups=1)
    data = data_of(layer, torch.float64)
    x, w = (t.clone().requires_grad_() for t in (data.x, data.w))

    assert torch.autograd.gradcheck(lambda x, w: POWER(x, w, *layer.sizes, False, 1.4), (x, w))


def test_opcheck_and_powers_that_have_no_kernel() -> None:
    layer = Layer(2, 4, 6, 5, 6, 3, 3, padding=(1, 1), groups=2)
    data = data_of(layer, torch.float32)
    x, w = (t.clone().requires_grad_() for t in (data.x, data.w))
    kinds = ("test_schema", "test_faketensor")
    torch.library.opcheck(POWER.default, (x, w, *layer.sizes, True, 1.5), test_utils=kinds)
    for operator in (POWER_GRAD_INPUT, POWER_GRAD_WEIGHT):
        arguments = (data.dy, data.x, data.w, *layer.sizes, 1.5)
        torch.library.opcheck(operator.default, arguments, test_utils=kinds)
    for p in (1.0, 2.0):
        with pytest.raises(RuntimeError, match="expected a power between 1 and 2"):
            POWER(data.x, data.w, *layer.sizes, True, p)
