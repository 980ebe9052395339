"""BatchNorm2d with its ReLU against torch's own."""

import pytest
import torch
from torch import nn

from addertrain.nn import BatchNorm2d


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_is_torchs_norm_followed_by_relu(relu: bool, training: bool) -> None:
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    mine, theirs = BatchNorm2d(3, relu=relu).double(), nn.BatchNorm2d(3).double()
    theirs.load_state_dict(mine.state_dict())
    mine.train(training)
    theirs.train(training)
    results = []
    for norm in (mine, theirs):
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        y = y.relu() if relu and norm is theirs else y
        (y * x).sum().backward()
        results.append((y.detach(), leaf.grad, norm.weight.grad, norm.running_mean, norm.running_var))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_input_is_not_overwritten() -> None:
    x = torch.randn(4, 3, 5, 5)
    before = x.clone()
    BatchNorm2d(3, relu=True)(x)
    assert torch.equal(x, before)


def test_repr_says_whether_a_relu_follows() -> None:
    assert "relu=True" in repr(BatchNorm2d(3, relu=True))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        (torch.contiguous_format, torch.float32),
        (torch.channels_last, torch.float32),
        (torch.channels_last, torch.bfloat16),
        (torch.channels_last, torch.float16),
    ],
    ids=str,
)
def test_statistics_and_gradients_hold_far_from_zero(
    layout: torch.memory_format, dtype: torch.dtype, momentum: float | None
) -> None:
    """500,000 values a channel about a mean of 100: plain float32 sums are off by percents."""
    torch.manual_seed(0)
    x = (torch.randn(8, 4, 250, 250) + 100).to(dtype).to(memory_format=layout).requires_grad_()
    norm, exact = BatchNorm2d(4, momentum=momentum, relu=True), nn.BatchNorm2d(4, momentum=momentum).double()
    exact_x = x.detach().double().requires_grad_()
    y, exact_y = norm(x), exact(exact_x).relu()
    dy = (torch.rand(y.shape) + 1).to(dtype)
    y.backward(dy)
    exact_y.backward(dy.double())

    rounding = torch.finfo(dtype).eps / 2 if dtype != torch.float32 else 0.0
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=layout)
    torch.testing.assert_close(y.double(), exact_y, rtol=1.01 * rounding + 1e-6, atol=2e-5)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        found, expected = norm.get_buffer(name).double(), exact.get_buffer(name).double()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    for found, expected in zip(norm.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(found.grad.double(), expected.grad, rtol=2e-4, atol=0)


def test_without_momentum_the_statistics_are_those_of_all_batches() -> None:
    norm, theirs = BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3, momentum=None)
    for _ in range(3):
        x = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
        torch.testing.assert_close(norm(x), theirs(x))
    torch.testing.assert_close(norm.running_mean, theirs.running_mean)
    torch.testing.assert_close(norm.running_var, theirs.running_var)
