"""A first or last layer of 16-bit operands: near float64, whose bytes differ at ties alone."""

import pytest
import torch
from torch import Tensor, nn

from addertrain.nn import BatchNorm2d, Conv2d, OrderedConv2d, OrderedLinear
from addertrain.nn.int8 import Grid
from addertrain.nn.int16 import Int16Conv2d


def trained(norm: BatchNorm2d) -> BatchNorm2d:
    with torch.no_grad():
        for numbers in (norm.weight, norm.running_var):
            numbers.uniform_(0.5, 2.0)
        for numbers in (norm.bias, norm.running_mean):
            numbers.normal_()
    return norm.eval()


def in_float64(layer: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(x.flatten(1).double(), layer.weight.double(), layer.bias.double())
    assert isinstance(layer, nn.Conv2d)
    assert isinstance(norm, BatchNorm2d)
    bias = None if layer.bias is None else layer.bias.double()
    y = nn.functional.conv2d(x.double(), layer.weight.double(), bias, layer.stride, layer.padding)
    mean, var, weight, bias = (
        numbers.double() for numbers in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    y = nn.functional.batch_norm(y, mean, var, weight, bias, eps=norm.eps)
    return torch.relu(y) if norm.relu else y


@pytest.mark.parametrize("head", ["norm", "linear"])
def test_logits_are_near_those_of_float64(head: str) -> None:
    torch.manual_seed(0)
    layer = OrderedConv2d(512, 50) if head == "norm" else OrderedLinear(512, 50)
    norm = trained(BatchNorm2d(50)) if head == "norm" else nn.Identity()
    x = torch.rand(6, 512, 1, 1) * 7.0

    got = Int16Conv2d(layer, norm, most=7.0)(x).flatten(1)

    expected = in_float64(layer, norm, x).detach().flatten(1)
    assert (got - expected).abs().max() < 2e-3 * expected.std()


def test_bytes_are_those_of_float64_but_for_ties() -> None:
    torch.manual_seed(0)
    layer, norm = Conv2d(3, 64, 7, stride=2, padding=3), trained(BatchNorm2d(64, relu=True))
    x = torch.randn(4, 3, 40, 36)
    expected = in_float64(layer, norm, x).detach()
    grid = Grid.over(0.0, float(expected.max()))

    got = Int16Conv2d(layer, norm, most=2.0 * float(x.abs().max()), outside=grid)(x)

    difference = got.int() - grid.bytes_of(expected).int()
    assert difference.abs().max() <= 1
    assert (difference != 0).double().mean() < 0.005
    assert len(got.unique()) > 100


def test_inputs_beyond_the_range_are_clipped() -> None:
    layer = OrderedLinear(8, 4)
    in_words = Int16Conv2d(layer, nn.Identity(), most=2.0)

    assert torch.equal(in_words(torch.full((1, 8, 1, 1), 2.0)), in_words(torch.full((1, 8, 1, 1), 50.0)))
