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
