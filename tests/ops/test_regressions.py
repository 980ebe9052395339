"""Mistakes that other implementations of the adder layer have made, one test each."""

import pytest
import torch

from addertrain.ops.functional import adder2d
from tests.ops.answers import data_of, forward_answer, grad_input_answer, grad_weight_answer
from tests.ops.implementations import EVERY_CPU, Implementation, name_of
from tests.ops.layers import Layer
from tests.ops.test_table import mistake

every_implementation = pytest.mark.parametrize("implementation", EVERY_CPU, ids=name_of)


@every_implementation
@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("kernel", [1, 3])
def test_stride_2_input_gradient_reaches_every_pixel(
    implementation: Implementation, kernel: int, size: int
) -> None:
    """The most copied CUDA kernel loses three quarters of it."""
    layer = Layer(2, 4, 6, size, size, kernel, kernel, (2, 2), (kernel // 2, kernel // 2))
    data = data_of(layer, torch.float32)

    with implementation.use():
        dx = implementation.grad_input(layer, data.dy, data.x, data.w)

    assert mistake(dx, grad_input_answer(layer, torch.float32), layer, "NCHW") is None
    if kernel == 3:
        assert (dx != 0).all()


def test_filter_gradient_is_not_transposed() -> None:
    """A filter that sees one pixel of one channel gets its gradient at that tap and no other."""
    x, weight = torch.zeros(1, 2, 3, 5), torch.zeros(3, 2, 3, 5, requires_grad=True)
    x[0, 1, 2, 3] = 7.0
    y = adder2d(x, weight)

    y[0, 2, 0, 0].backward()

    expected = torch.zeros_like(weight)
    expected[2, 1, 2, 3] = 7.0
    assert weight.grad is not None
    assert torch.equal(weight.grad, expected)


@every_implementation
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_filters_of_any_size(implementation: Implementation, channels: int) -> None:
    """K = 9, 27, 45 is no multiple of a tile; nor are 5 filters and 35 positions."""
    layer = Layer(1, channels, 5, 5, 7, 3, 3, padding=(1, 1))
    data = data_of(layer, torch.float64)
    exact = (
        -(torch.nn.functional.unfold(data.x, 3, padding=1).unsqueeze(1) - data.w.flatten(1).unsqueeze(2))
        .abs()
        .sum(2)
    )

    with implementation.use():
        y = implementation.forward(layer, data.x.float(), data.w.float())

    torch.testing.assert_close(y.double().flatten(2), exact, rtol=1e-5, atol=1e-5)


@every_implementation
def test_every_sample_of_the_batch_is_computed(implementation: Implementation) -> None:
    layer = Layer(37, 2, 3, 4, 4, 3, 3)
    data = data_of(layer, torch.float32)
    dy = torch.zeros_like(data.dy)
    dy[36] = 1.0

    with implementation.use():
        y = implementation.forward(layer, data.x, data.w)
        last = implementation.forward(layer, data.x[36:], data.w)
        dx = implementation.grad_input(layer, dy, data.x, data.w)

    torch.testing.assert_close(y[36:], last, rtol=1e-5, atol=1e-5)
    assert not dx[:36].any()
    assert dx[36].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sixteen_bits_are_read_as_what_they_are(dtype: torch.dtype) -> None:
    layer = Layer(2, 3, 4, 6, 6, 3, 3)
    data = data_of(layer, dtype)
    x, weight = data.x.clone().requires_grad_(), data.w.clone().requires_grad_()

    adder2d(x, weight, offset_free=True).backward(data.dy)

    assert x.grad is not None
    assert weight.grad is not None
    assert mistake(x.grad, grad_input_answer(layer, dtype), layer, "NCHW") is None
    assert mistake(weight.grad, grad_weight_answer(layer, dtype), layer, "NCHW") is None


@every_implementation
def test_channels_last_is_not_read_as_nchw(implementation: Implementation) -> None:
    layer = Layer(2, 6, 5, 6, 6, 3, 3, padding=(1, 1))
    data = data_of(layer, torch.float32)

    with implementation.use():
        y = implementation.forward(layer, data.x, data.w)
        y_last = implementation.forward(layer, data.x.to(memory_format=torch.channels_last), data.w)

    torch.testing.assert_close(y_last, y, rtol=1e-5, atol=1e-5)


SEVERAL_PASSES = [
    Layer(1, 512, 64, 9, 14, 3, 3, (2, 2), (1, 1)),  # of ResNet's last stage, with fewer rows
    Layer(1, 512, 48, 3, 5, 3, 3, padding=(1, 1)),
    Layer(1, 1024, 16, 3, 6, 5, 5, padding=(2, 2)),
    Layer(1, 1024, 16, 5, 9, 5, 5, (2, 2), (2, 2)),
]


@every_implementation
@pytest.mark.parametrize("layer", SEVERAL_PASSES, ids=str)
@pytest.mark.parametrize("behind_relu", [False, True])
def test_taps_that_take_several_passes_are_added_once(
    implementation: Implementation, layer: Layer, behind_relu: bool
) -> None:
    """Where a row ends inside a tile, the last tile and the one before it may share outputs."""
    data = data_of(layer, torch.float32, behind_relu)
    answer = forward_answer(layer, torch.float32, True, behind_relu)

    with implementation.use():
        y = implementation.forward(layer, data.x.to(memory_format=torch.channels_last), data.w, True)

    assert mistake(y, answer, layer, "channels-last") is None
