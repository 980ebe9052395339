"""BinaryConv2d: what it computes, and where its gradients pass."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from addertrain.nn import BinaryConv2d
from addertrain.nn.binary import binary_filters, binary_sign


def test_the_sign_of_zero_is_one() -> None:
    x = torch.tensor([-2.0, -0.0, 0.0, 1e-9, 3.0])

    assert binary_sign(x).tolist() == [-1, 1, 1, 1, 1]


def test_the_response_is_bit_counts_times_a_scale_per_filter() -> None:
    layer = BinaryConv2d(3, 4, 3, padding=0).double()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    found = layer(x)
    for o in range(4):
        scale = layer.weight[o].abs().mean()
        bits = conv2d(x.sign(), layer.weight[o : o + 1].sign())
        agreeing = (bits + 27) / 2  # XNOR and a bit count over 27 pairs

        torch.testing.assert_close(agreeing, agreeing.round())
        torch.testing.assert_close(found[:, o], (2 * agreeing - 27)[:, 0] * scale)


def test_padding_contributes_nothing() -> None:
    layer = BinaryConv2d(1, 1, 3, padding=1)
    with torch.no_grad():
        layer.weight.fill_(0.5)

    assert layer(torch.ones(1, 1, 3, 3))[0, 0].tolist() == [[2.0, 3.0, 2.0], [3.0, 4.5, 3.0], [2.0, 3.0, 2.0]]


def test_gradients_pass_straight_through_where_inputs_are_within_one() -> None:
    x = torch.tensor([-1.5, -1.0, 0.2, 1.0, 1.01], requires_grad=True)
    binary_sign(x).backward(torch.full((5,), 2.0))
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 2, 2, 0]

    w = torch.randn(2, 3, 1, 1, requires_grad=True)
    dy = torch.randn(2, 3, 1, 1)
    binary_filters(w).backward(dy)
    assert w.grad is not None
    assert torch.equal(w.grad, dy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_runs_under_autocast(dtype: torch.dtype) -> None:
    layer = BinaryConv2d(4, 8, 3, stride=2, padding=1)
    x = torch.randn(2, 4, 7, 7, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        y = layer(x)
    y.float().sum().backward()

    assert y.dtype == dtype
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


def test_starts_like_torchs_convolution() -> None:
    torch.manual_seed(3)
    ours = BinaryConv2d(8, 4, 3).weight
    torch.manual_seed(3)

    assert torch.equal(ours, nn.Conv2d(8, 4, 3, bias=False).weight)
