"""The adder layer on volumes, against the sum over windows in float64."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addertrain.nn import AdderConv3d, param_groups


def _windows(x: Tensor, torchs: nn.Conv3d) -> Tensor:
    """(N, C, D', P, Q, T, R, S): the patches of x that torch's layer reads."""
    a, b, c = (int(n) for n in torchs.padding)
    patches = F.pad(x, (c, c, b, b, a, a))
    for axis, (taps, step, spread) in enumerate(
        zip(torchs.kernel_size, torchs.stride, torchs.dilation, strict=True)
    ):
        patches = patches.unfold(2 + axis, spread * (taps - 1) + 1, step)[..., ::spread]
    return patches


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups"),
    [(3, 1, 1, 1, 1), ((2, 3, 1), (2, 1, 2), (1, 0, 0), 1, 2), ((3, 1, 2), 2, (2, 1, 1), (2, 1, 3), 4)],
)
@pytest.mark.parametrize("offset_free", [False, True])
def test_response_and_gradients_are_those_of_the_windows(
    kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int, offset_free: bool
) -> None:
    torch.manual_seed(0)
    layer = AdderConv3d(
        4, 8, kernel, stride, padding, dilation, groups=groups, bias=True, offset_free=offset_free
    ).double()
    torchs = nn.Conv3d(4, 8, kernel, stride, padding, dilation, groups)
    x = torch.randn(2, 4, 5, 6, 7, dtype=torch.float64, requires_grad=True)

    y = layer(x)
    grad_y = torch.randn_like(y)
    grad_x, grad_w = torch.autograd.grad(y, (x, layer.conv.weight), grad_y)

    assert y.shape == torchs(x.float()).shape
    windows = _windows(x, torchs).unflatten(1, (groups, -1)).unsqueeze(2)  # (N, G, 1, C/G, ...)
    w = layer.conv.weight.detach().view(torchs.weight.shape).unflatten(0, (groups, -1))
    difference = windows - w[:, :, :, None, None, None]
    terms = -difference.abs() + (w.abs()[:, :, :, None, None, None] if offset_free else 0.0)
    torch.testing.assert_close(y, terms.sum((3, 7, 8, 9)).flatten(1, 2))
    dy = grad_y.unflatten(1, (groups, -1))[:, :, :, None, :, :, :, None, None, None]
    expected_w = (dy * difference).sum((0, 4, 5, 6)).flatten(0, 1)
    torch.testing.assert_close(grad_w.view(torchs.weight.shape), expected_w)
    clipped = (dy * (-difference).clamp(-1, 1)).detach()  # summed back to where the windows come from
    (expected_x,) = torch.autograd.grad((windows * clipped).sum(), x)
    torch.testing.assert_close(grad_x, expected_x)


def test_its_filters_are_adder_filters() -> None:
    groups = param_groups(nn.Sequential(AdderConv3d(2, 3, (2, 3, 3))), weight_decay=0.0)
    assert (groups[0]["layer_names"], groups[0]["layer_numel"]) == (["0.conv"], [2 * 3 * 2 * 9])


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: AdderConv3d(2, 3, (3, 3)), TypeError, r"kernel_size as an int or three ints, got \(3, 3\)"),
        (lambda: AdderConv3d(2, 3, 3, (0, 1, 1)), ValueError, "at least 1 in depth"),
        (lambda: AdderConv3d(2, 3, 3)(torch.zeros(2, 2, 2, 4, 4)), ValueError, "at least as deep"),
        (lambda: AdderConv3d(2, 3, 3)(torch.zeros(2, 4, 4, 4)), ValueError, r"\(N, C, D, H, W\)"),
    ],
)
def test_what_cannot_be_computed_is_refused(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()
