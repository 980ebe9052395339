"""What is not finite never becomes a plausible number, and stays where it was seen."""

import itertools

import pytest
import torch
from torch import Tensor

from addertrain.ops import reference
from tests.ops.answers import Data, data_of, grad_input_answer_of
from tests.ops.implementations import EVERY_CPU, Implementation, name_of, ways
from tests.ops.layers import Layer
from tests.ops.test_table import mistake

LAYERS = [
    Layer(2, 5, 6, 7, 8, 3, 3, (1, 1), (1, 1)),
    Layer(2, 17, 18, 8, 9, 3, 3, (2, 2), (1, 0)),
    Layer(2, 20, 5, 4, 5, 1, 1, (2, 1), (1, 1)),
    Layer(2, 3, 33, 9, 8, 5, 3, padding=(0, 1), dilation=(2, 1)),
    Layer(3, 4, 9, 3, 3, 3, 3),
    Layer(1, 256, 66, 4, 5, 3, 3, padding=(1, 1)),
]
VALUES = {"NaN": torch.nan, "inf": torch.inf, "-inf": -torch.inf}
WAYS = ways(torch.float64, torch.bfloat16, cuda_dtypes=(torch.float32, torch.float64, torch.bfloat16))
in_every_way = pytest.mark.parametrize(("implementation", "dtype"), WAYS, ids=name_of)
with_every_value = pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)


def places(shape: torch.Size) -> list[tuple[int, ...]]:
    """First, middle and last element."""
    return [(0,) * len(shape), tuple(size // 2 for size in shape), tuple(size - 1 for size in shape)]


def _with(tensor: Tensor, place: tuple[int, ...], value: float) -> Tensor:
    changed = tensor.clone()
    changed[place] = value
    return changed


def _outputs_that_see(layer: Layer, data: Data, place: tuple[int, ...]) -> Tensor:
    """[N, O, P, Q]: whether the filter at an output lies over this element of x."""
    spot = _with(torch.zeros_like(data.x.double()), place, 1.0)
    ones = torch.ones_like(data.w.double())
    strides = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    return torch.nn.functional.conv2d(spot, ones, **strides) > 0


@in_every_way
@with_every_value
def test_forward_with_a_nonfinite_input(
    implementation: Implementation, dtype: torch.dtype, value: float
) -> None:
    for layer, offset_free, behind_relu in itertools.product(LAYERS, (False, True), (False, True)):
        data = data_of(layer, dtype, behind_relu)
        for place in places(data.x.shape):
            with implementation.use():
                y = implementation.forward(layer, _with(data.x, place, value), data.w, offset_free)

            seen = _outputs_that_see(layer, data, place)
            where = f"{layer}, x{place}, offset_free={offset_free}"
            if implementation.saturates and dtype.itemsize == 2 and value == -torch.inf:
                assert not y.isfinite()[seen].any(), where  # it spreads to the positions beside it
            else:
                assert torch.equal(~y.isfinite(), seen), where


@in_every_way
@with_every_value
def test_forward_with_a_nonfinite_filter(
    implementation: Implementation, dtype: torch.dtype, value: float
) -> None:
    for layer, offset_free, behind_relu in itertools.product(LAYERS, (False, True), (False, True)):
        data = data_of(layer, dtype, behind_relu)
        for place in places(data.w.shape):
            with implementation.use():
                y = implementation.forward(layer, data.x, _with(data.w, place, value), offset_free)

            of_the_filter = torch.zeros_like(y, dtype=torch.bool)
            of_the_filter[:, place[0]] = True
            assert torch.equal(~y.isfinite(), of_the_filter), f"{layer}, w{place}, offset_free={offset_free}"


@in_every_way
def test_input_gradient_with_nan(implementation: Implementation, dtype: torch.dtype) -> None:
    """In x: there, where an output saw it. In w: at least where its tap was seen, at most in its channel."""
    for layer in LAYERS:
        data = data_of(layer, dtype)
        for place in places(data.x.shape):
            x = _with(data.x, place, torch.nan)
            with implementation.use():
                dx = implementation.grad_input(layer, data.dy, x, data.w)
            elsewhere = torch.ones_like(x, dtype=torch.bool)
            elsewhere[place] = False
            assert dx[elsewhere].isfinite().all(), f"{layer}, x{place}"
            assert dx[place].isnan() or not _outputs_that_see(layer, data, place).any(), f"{layer}, x{place}"
        for place in places(data.w.shape):
            w = _with(data.w, place, torch.nan)
            with implementation.use():
                dx = implementation.grad_input(layer, data.dy, data.x, w)
            expected = reference.adder2d_grad_input(data.dy, data.x, w, *layer.sizes).isnan()
            assert dx[expected].isnan().all(), f"{layer}, w{place}"
            dx[:, place[1]] = 0
            assert dx.isfinite().all(), f"{layer}, w{place}"


@in_every_way
def test_input_gradient_with_nan_in_dy(implementation: Implementation, dtype: torch.dtype) -> None:
    for layer in LAYERS:
        data = data_of(layer, dtype)
        for place in places(data.dy.shape):
            dy = _with(data.dy, place, torch.nan)
            with implementation.use():
                dx = implementation.grad_input(layer, dy, data.x, data.w)

            expected = reference.adder2d_grad_input(dy, data.x, data.w, *layer.sizes).isnan()
            assert torch.equal(dx.isnan(), expected), f"{layer}, dy{place}"


@in_every_way
def test_input_gradient_of_infinite_differences_is_clipped(
    implementation: Implementation, dtype: torch.dtype
) -> None:
    for layer, value in itertools.product(LAYERS, (torch.inf, -torch.inf)):
        data = data_of(layer, dtype)
        for x, w in (
            (_with(data.x, places(data.x.shape)[1], value), data.w),
            (data.x, _with(data.w, places(data.w.shape)[1], value)),
        ):
            with implementation.use():
                dx = implementation.grad_input(layer, data.dy, x, w)

            far = Data(x.clamp(-100, 100), w.clamp(-100, 100), data.dy)  # clipped to the same
            answer = grad_input_answer_of(layer, far, implementation.saturates)
            assert mistake(dx, answer, layer, str(value)) is None


@pytest.mark.parametrize("implementation", EVERY_CPU, ids=name_of)
def test_sums_past_the_largest_number_are_not_finite(implementation: Implementation) -> None:
    layer = LAYERS[0]
    data = data_of(layer, torch.float32)

    with implementation.use():
        y = implementation.forward(layer, torch.full_like(data.x, 3e38), torch.full_like(data.w, -3e38))

    assert not y.isfinite().any()
