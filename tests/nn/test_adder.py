"""Adder layers as modules: their response, their shape as modules, their refusals."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from addertrain.nn import AdderConv2d, AdderLinear

FLOAT64 = 1e-13
"""Sums of at most 100 numbers below 10 in two orders: 100 * 1.1e-16 * 10, relative to responses above 1."""


def _response(x: Tensor, w: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """Eq. 2, one output position at a time."""
    x = pad(x, [padding] * 4)
    span_r, span_s = (dilation * (size - 1) + 1 for size in w.shape[2:])
    rows = range(0, x.shape[2] - span_r + 1, stride)
    columns = range(0, x.shape[3] - span_s + 1, stride)
    y = torch.empty(x.shape[0], w.shape[0], len(rows), len(columns), dtype=x.dtype)
    for p, top in enumerate(rows):
        for q, left in enumerate(columns):
            patch = x[:, None, :, top : top + span_r : dilation, left : left + span_s : dilation]
            y[:, :, p, q] = -(patch - w[None]).abs().sum((2, 3, 4))
    return y


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding", "dilation"),
    [(1, 1, 0, 1), (3, 1, 1, 1), (3, 2, 1, 1), ((1, 3), 3, 2, 1), (3, 1, 0, 2)],
)
def test_conv_matches_the_equation(kernel_size: Any, stride: int, padding: int, dilation: int) -> None:
    layer = AdderConv2d(3, 5, kernel_size, stride, padding, dilation, dtype=torch.float64)
    x = _random(2, 3, 7, 6)
    expected = _response(x, layer.weight.detach(), stride, padding, dilation)
    torch.testing.assert_close(layer(x).detach(), expected, rtol=FLOAT64, atol=0)


def test_offset_free_adds_the_filters_own_sum() -> None:
    layer = AdderConv2d(3, 5, 3, padding=1, dtype=torch.float64, bias=True)
    nn.init.normal_(layer.bias)
    x = _random(2, 3, 4, 4)
    expected = layer(x) + layer.weight.abs().sum((1, 2, 3)).view(-1, 1, 1)
    layer.offset_free = True
    torch.testing.assert_close(layer(x), expected, rtol=FLOAT64, atol=FLOAT64)


def test_bias_is_added_per_filter() -> None:
    layer = AdderConv2d(2, 3, 1, bias=True, dtype=torch.float64)
    x = _random(1, 2, 3, 3)
    without = layer(x).detach()  # it starts at 0
    with torch.no_grad():
        layer.bias += torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(
        (layer(x) - without)[0, :, 1, 2].detach(), torch.tensor([1.0, 2.0, 3.0]).double()
    )


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6)])
@pytest.mark.parametrize("offset_free", [False, True])
def test_linear_matches_the_equation_for_any_leading_dimensions(
    shape: tuple[int, ...], offset_free: bool
) -> None:
    layer = AdderLinear(6, 4, offset_free=offset_free, bias=True, dtype=torch.float64)
    nn.init.normal_(layer.bias)
    x = _random(*shape)
    expected = -(x[..., None, :] - layer.weight).abs().sum(-1) + layer.bias
    if offset_free:
        expected = expected + layer.weight.abs().sum(-1)
    torch.testing.assert_close(layer(x), expected, rtol=FLOAT64, atol=FLOAT64)


def test_gradients_are_raw() -> None:
    layer = AdderLinear(6, 4, dtype=torch.float64)
    x = _random(5, 6).requires_grad_()
    layer(x).sum().backward()
    difference = x.detach()[:, None, :] - layer.weight.detach()
    torch.testing.assert_close(layer.weight.grad, difference.sum(0), rtol=FLOAT64, atol=FLOAT64)  # Eq. 5
    torch.testing.assert_close(x.grad, -difference.clamp(-1, 1).sum(1), rtol=FLOAT64, atol=FLOAT64)  # Eq. 6


def test_empty_batch_gives_an_empty_response() -> None:
    assert AdderConv2d(2, 3, 3)(torch.empty(0, 2, 5, 5)).shape == (0, 3, 3, 3)
    assert AdderLinear(2, 3)(torch.empty(0, 2)).shape == (0, 3)


def test_filters_start_from_a_standard_normal_whatever_the_fan_in() -> None:
    torch.manual_seed(0)
    for weight in (AdderConv2d(512, 64, 3).weight, AdderLinear(4, 50_000).weight):
        assert weight.mean().item() == pytest.approx(0.0, abs=0.01)
        assert weight.std().item() == pytest.approx(1.0, abs=0.01)


def test_state_and_attributes_are_those_of_torchs_layers() -> None:
    pairs = [
        (AdderConv2d(4, 8, 3, 2, 1, bias=True), nn.Conv2d(4, 8, 3, 2, 1)),
        (AdderLinear(4, 8, bias=True), nn.Linear(4, 8)),
    ]
    for adder, twin in pairs:
        mine, theirs = adder.state_dict(), twin.state_dict()
        assert {name: value.shape for name, value in mine.items()} == {k: v.shape for k, v in theirs.items()}
        shared = {"kernel_size", "stride", "padding", "dilation", "in_channels", "out_features"} & set(
            vars(twin)
        )
        assert all(getattr(adder, name) == getattr(twin, name) for name in shared)


def test_repr_reads_like_torchs() -> None:
    assert repr(AdderConv2d(3, 8, 3, 2, 1, offset_free=True)) == (
        "AdderConv2d(3, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False, offset_free=True, "
        "rectified=False)"
    )
    assert repr(AdderLinear(3, 8, bias=True)) == (
        "AdderLinear(in_features=3, out_features=8, bias=True, offset_free=False)"
    )


def test_can_be_built_without_memory() -> None:
    layer = AdderConv2d(3, 8, 3, device="meta")
    assert layer.weight.is_meta
    assert layer.filter_numel == 216


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: AdderConv2d(4, 8, 3, groups=3), ValueError, "groups that divide in_channels=4 and out_chan"),
        (lambda: AdderConv2d(4, 6, 3, groups=4), ValueError, "out_channels=6, got 4"),
        (lambda: AdderConv2d(4, 8, 3, groups=0), ValueError, "expected groups >= 1, got 0"),
        (lambda: AdderConv2d(0, 8, 3), ValueError, "AdderConv2d: expected in_channels >= 1, got 0"),
        (lambda: AdderConv2d(4, 8.0, 3), TypeError, "AdderConv2d: expected out_channels as an int, got 8.0"),
        (lambda: AdderConv2d(4, 8, (3, 3, 3)), TypeError, "expected kernel_size as an int or a pair of ints"),
        (
            lambda: AdderConv2d(4, 8, 3, padding="full"),
            TypeError,
            'expected padding as an int or a pair of ints, "same" or "valid", got \'full\'',
        ),
        (lambda: AdderConv2d(4, 8, 3, padding=-1), ValueError, "AdderConv2d: expected padding >= 0, got -1"),
        (lambda: AdderConv2d(4, 8, 3, stride=(1, 0)), ValueError, "AdderConv2d: expected stride >= 1, got 0"),
        (lambda: AdderLinear(4, -8), ValueError, "AdderLinear: expected out_features >= 1, got -8"),
        (
            lambda: AdderConv2d(4, 8, 3)(torch.ones(1, 3, 5, 5)),
            ValueError,
            "expected weight for C=3 input channels",
        ),
        (
            lambda: AdderConv2d(4, 8, 3)(torch.ones(4, 5, 5)),
            ValueError,
            "expected x_nchw and w_ocrs with 4 dim",
        ),
        (
            lambda: AdderLinear(4, 8)(torch.ones(2, 3)),
            ValueError,
            r"expected x of shape \(..., 4\), got \(2, 3\)",
        ),
    ],
)
def test_bad_arguments_give_one_clear_line(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
