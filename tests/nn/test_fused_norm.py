"""The fused norm and ReLU against torch's own in float64, forward, gradients and running statistics."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from addertrain.nn import BatchNorm2d, adder_norm_residual
from addertrain.ops.fusion import end_path, norm_pays
from tests import instruction_sets

SHAPES = [
    (256, 6, 7, 7),
    (64, 16, 10, 10),
    (37, 120, 1, 1),
    (3, 7, 5, 5),
    (2, 300, 3, 3),
    (5, 10, 1, 1),
    (2, 1, 3, 2),
]
# float32 sums of at most a chunk, merged in float64: a few units in the last place of the largest value.
TOLERANCE = 2e-6


@pytest.fixture(params=instruction_sets.NAMES)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    with instruction_sets.chosen(request.param):
        yield


def channels_last(shape: tuple[int, ...], *, mean: float = 0.0) -> Tensor:
    n, c, h, w = shape
    return (torch.randn(n, h, w, c) * 1.3 + mean).permute(0, 3, 1, 2)


def pair_of_norms(channels: int, *, relu: bool) -> tuple[BatchNorm2d, nn.BatchNorm2d]:
    fused, wide = BatchNorm2d(channels, relu=relu), nn.BatchNorm2d(channels).double()
    with torch.no_grad():
        fused.weight.normal_()
        fused.bias.normal_()
        wide.weight.copy_(fused.weight)
        wide.bias.copy_(fused.bias)
    return fused, wide


def assert_near(got: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    error = (got.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30)
    assert error < tolerance


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_gradients_and_statistics_match_float64(shape: tuple[int, ...], relu: bool) -> None:
    torch.manual_seed(0)
    fused, wide = pair_of_norms(shape[1], relu=relu)
    x = channels_last(shape).requires_grad_()
    x_wide = x.detach().double().requires_grad_()
    assert norm_pays(x)
    y, y_wide = fused(x), wide(x_wide)
    y_wide = y_wide.relu() if relu else y_wide
    dy = torch.randn_like(y)
    y.backward(dy)
    y_wide.backward(dy.double())
    assert y.stride() == x.stride()
    assert_near(y, y_wide)
    assert_near(x.grad, x_wide.grad)
    for got, expected in zip(fused.parameters(), wide.parameters(), strict=True):
        assert_near(got.grad, expected.grad)
    assert_near(fused.running_mean, wide.running_mean)
    assert_near(fused.running_var, wide.running_var)
    assert fused.num_batches_tracked == wide.num_batches_tracked


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_the_end_of_a_block_takes_a_norm_of_another_type(dtype: torch.dtype) -> None:
    norm = pair_of_norms(7, relu=False)[0].to(dtype)
    twin = copy.deepcopy(norm)
    x, residual = (channels_last((3, 7, 5, 5)) for _ in range(2))
    assert end_path(x, residual) == "residual"

    y = adder_norm_residual(nn.Identity(), norm, x, residual)
    y.sum().backward()

    assert_near(y, torch.relu(twin(x) + residual).double())
    assert norm.weight.grad is not None
    assert norm.weight.grad.dtype == dtype


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_end_of_a_block_matches_float64(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    fused, wide = pair_of_norms(shape[1], relu=False)
    x, residual = (channels_last(shape).requires_grad_() for _ in range(2))
    x_wide, residual_wide = (tensor.detach().double().requires_grad_() for tensor in (x, residual))
    assert end_path(x, residual) == "residual"
    y = adder_norm_residual(nn.Identity(), fused, x, residual)
    assert type(y.grad_fn).__name__.startswith("GeneratedBackwardFor_addertrain_batch_norm_residual_relu")
    y_wide = torch.relu(wide(x_wide) + residual_wide)
    dy = torch.randn_like(y)
    y.backward(dy)
    y_wide.backward(dy.double())
    assert y.stride() == x.stride()
    for got, expected in ((y, y_wide), (x.grad, x_wide.grad), (residual.grad, residual_wide.grad)):
        assert_near(got, expected)
    for got, expected in zip(fused.parameters(), wide.parameters(), strict=True):
        assert_near(got.grad, expected.grad)
    assert_near(fused.running_mean, wide.running_mean)
    assert_near(fused.running_var, wide.running_var)


def test_a_residual_that_does_not_fit_is_added_as_ever() -> None:
    x, norm = channels_last((4, 6, 5, 5)), BatchNorm2d(6)
    for residual in (torch.randn(4, 6, 5, 5), torch.randn(6, 1, 1)):  # channels first; to be broadcast
        expected = torch.relu(norm(x) + residual)
        assert torch.equal(adder_norm_residual(nn.Identity(), norm, x, residual), expected)


def test_a_watched_norm_is_called() -> None:
    x, norm = channels_last((4, 6, 5, 5)), BatchNorm2d(6)
    seen: list[Tensor] = []
    norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    adder_norm_residual(nn.Identity(), norm, x, x)
    assert len(seen) == 1


def test_mean_a_thousand_times_the_deviation_keeps_the_variance() -> None:
    """A wide adder layer's raw response is like this; E[y^2] - E[y]^2 in float32 would lose it."""
    torch.manual_seed(0)
    fused, wide = pair_of_norms(16, relu=False)
    x = channels_last((64, 16, 8, 8), mean=1300.0)
    y_wide = wide(x.double())
    assert_near(fused(x), y_wide, tolerance=1e-4)  # x itself carries 6e-5 of its deviation in rounding
    assert_near(fused.running_var, wide.running_var)


def test_threads_change_nothing() -> None:
    torch.manual_seed(0)
    x, norm = channels_last((64, 24, 14, 14)).requires_grad_(), BatchNorm2d(24, relu=True)
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            x.grad = None
            y = adder_norm_residual(nn.Identity(), BatchNorm2d(24), norm(x), x)
            y.sum().backward()
            results.append((y.detach(), x.grad))
    finally:
        torch.set_num_threads(threads)
    for y, dx in results[1:]:
        assert torch.equal(y, results[0][0])
        assert torch.equal(dx, results[0][1])


def test_nan_reaches_the_output() -> None:
    x = channels_last((8, 4, 3, 3))
    x[0, 2, 0, 0] = torch.nan
    y = BatchNorm2d(4, relu=True)(x)
    assert adder_norm_residual(nn.Identity(), BatchNorm2d(4), x, torch.zeros_like(x))[:, 2].isnan().all()
    assert y[:, 2].isnan().all()
    assert y[:, [0, 1, 3]].isfinite().all()


def test_operator_keeps_its_contract() -> None:
    x = channels_last((4, 6, 5, 5)).requires_grad_()
    weight, bias = (torch.randn(6).requires_grad_() for _ in range(2))
    torch.library.opcheck(torch.ops.addertrain.batch_norm_relu.default, (x, weight, bias, 1e-5, True))
    residual = channels_last((4, 6, 5, 5)).requires_grad_()
    arguments = (x, residual, weight, bias, 1e-5)
    torch.library.opcheck(torch.ops.addertrain.batch_norm_residual_relu.default, arguments)


def test_compiles_whole() -> None:
    norm = BatchNorm2d(6, relu=True)
    x = channels_last((4, 6, 5, 5))
    expected = norm(x)
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), expected)


def test_single_value_per_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        BatchNorm2d(4)(torch.randn(1, 1, 1, 4).permute(0, 3, 1, 2))
