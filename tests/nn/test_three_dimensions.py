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


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [(2, 0, 1), "same", "valid"], ids=str)
def test_volumes_are_padded_as_torchs_convolution_pads_them(mode: str, padding: Any) -> None:
    settings: dict[str, Any] = {"padding": padding, "dilation": (1, 2, 1), "groups": 2}
    layer = AdderConv3d(4, 6, (4, 2, 3), padding_mode=mode, **settings).double()
    torchs = nn.Conv3d(4, 6, (4, 2, 3), padding_mode=mode, **settings)
    bare = AdderConv3d(4, 6, (4, 2, 3), dilation=(1, 2, 1), groups=2).double()
    bare.load_state_dict(layer.state_dict())
    x = torch.randn(2, 4, 5, 6, 7, dtype=torch.float64)

    y = layer(x)

    edges: Any = torchs._reversed_padding_repeated_twice
    expected = bare(F.pad(x, list(edges), "constant" if mode == "zeros" else mode))
    assert y.shape == torchs(x.float()).shape
    torch.testing.assert_close(y, expected)


def test_same_with_a_stride_gives_a_depth_for_every_step() -> None:
    layer = AdderConv3d(2, 3, (4, 3, 1), (3, 2, 1), "same", (2, 1, 1)).double()
    bare = AdderConv3d(2, 3, (4, 3, 1), (3, 2, 1), 0, (2, 1, 1)).double()
    bare.load_state_dict(layer.state_dict())
    x = torch.randn(1, 2, 8, 5, 4, dtype=torch.float64)

    y = layer(x)

    # (3 - 1)*3 + 2*3 + 1 - 8 = 5 more in depth, the odd one behind, and (3 - 1)*2 + 2 + 1 - 5 = 2 more rows.
    assert y.shape == (1, 3, 3, 3, 4)
    torch.testing.assert_close(y, bare(F.pad(x, (0, 0, 1, 1, 2, 3))))


def test_its_filters_are_adder_filters() -> None:
    groups = param_groups(nn.Sequential(AdderConv3d(2, 3, (2, 3, 3))), weight_decay=0.0)
    assert (groups[0]["layer_names"], groups[0]["layer_numel"]) == (["0.conv"], [2 * 3 * 2 * 9])


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: AdderConv3d(2, 3, (3, 3)), TypeError, r"kernel_size as an int or three ints, got \(3, 3\)"),
        (lambda: AdderConv3d(2, 3, 3, (0, 1, 1)), ValueError, "at least 1 in depth"),
        (lambda: AdderConv3d(2, 3, 3, padding=(-1, 1, 1)), ValueError, "padding >= 0, got 3, 1, 1 and -1"),
        (
            lambda: AdderConv3d(2, 3, 3, padding="full"),
            TypeError,
            'three ints, "same" or "valid", got \'full\'',
        ),
        (lambda: AdderConv3d(2, 3, 3, padding_mode="wrap"), ValueError, "padding_mode as one of zeros"),
        (lambda: AdderConv3d(2, 3, 3)(torch.zeros(2, 2, 2, 4, 4)), ValueError, "at least as deep"),
        (lambda: AdderConv3d(2, 3, 3)(torch.zeros(2, 4, 4, 4)), ValueError, r"\(N, C, D, H, W\)"),
    ],
)
def test_what_cannot_be_computed_is_refused(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()
