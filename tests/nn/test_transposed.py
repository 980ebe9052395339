"""The transposed adder layer: shapes of torch's, numbers and gradients of the sum written out in float64."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addertrain.interchange.own_operator import in_own_operators
from addertrain.interchange.standard import in_standard_operations
from addertrain.models import count_operations
from addertrain.nn import AdderConvTranspose2d, BatchNorm2d, convert, param_groups, set_variant
from addertrain.ops import transposed_reference
from addertrain.ops.variants import Variant
from addertrain.optim import AdderSGD
from addertrain.proof import layers_of

# kernel, stride, padding, output_padding, dilation, groups: U-Net's, uneven steps, cropped and widened edges,
# rows that no output or only some outputs see.
CASES: list[tuple[Any, Any, Any, Any, Any, int]] = [
    (2, 2, 0, 0, 1, 1),
    (4, 2, 1, 0, 1, 2),
    (3, 2, 1, 1, 1, 1),
    (3, 1, 1, 0, 1, 1),
    ((5, 2), (3, 2), (2, 0), (0, 1), 1, 2),
    (3, 2, 0, 1, 2, 1),
    ((3, 2), (2, 3), (3, 0), (1, 2), (3, 2), 1),
    (1, 3, 0, 2, 1, 2),
    (3, 4, 0, 0, 1, 4),
]


def _layer(case: tuple[Any, ...], **settings: Any) -> AdderConvTranspose2d:
    kernel, stride, padding, more, dilation, groups = case
    torch.manual_seed(0)
    return AdderConvTranspose2d(4, 8, kernel, stride, padding, more, dilation, groups=groups, **settings)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("offset_free", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_response_and_gradients_are_those_written_out(
    case: tuple[Any, ...], offset_free: bool, channels_last: bool
) -> None:
    layer = _layer(case, offset_free=offset_free).double()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format).requires_grad_()

    y = layer(x)
    grad_y = torch.randn_like(y)
    grad_x, grad_w = torch.autograd.grad(y, (x, layer.weight), grad_y)

    kernel, stride, padding, more, dilation, groups = case
    torchs = nn.ConvTranspose2d(4, 8, kernel, stride, padding, more, groups, dilation=dilation)
    assert y.shape == torchs(x.float()).shape
    assert layer.weight.shape == torchs.weight.shape
    assert y.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    numbers = (x.detach(), layer.weight.detach())
    expected = transposed_reference.response(*numbers, layer.geometry, groups, offset_free=offset_free)
    expected_x, expected_w = transposed_reference.gradients(*numbers, grad_y, layer.geometry, groups)
    torch.testing.assert_close(y.detach(), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(grad_x, expected_x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(grad_w, expected_w, rtol=1e-10, atol=1e-10)


def test_zeros_between_pixels_take_no_part() -> None:
    layer = AdderConvTranspose2d(1, 1, 2, 2)
    nn.init.constant_(layer.weight, 3.0)

    y = layer(torch.ones(1, 1, 2, 2))

    assert torch.equal(y, torch.full((1, 1, 4, 4), -2.0))  # one pixel each; three zeros more would add -9


@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_float32_and_exported_layers_agree(case: tuple[Any, ...]) -> None:
    layer = _layer(case, bias=True, offset_free=True)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 4, 5, 6)

    y = layer(x).detach()

    expected = transposed_reference.response(
        x, layer.weight.detach(), layer.geometry, layer.groups, offset_free=True
    )
    expected = expected + layer.bias.detach().double().view(-1, 1, 1)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(in_standard_operations(nn.Sequential(layer))(x), y, rtol=1e-5, atol=1e-5)
    assert in_own_operators(nn.Sequential(layer))(x).shape == y.shape


def test_signs_and_powers_reach_the_layer() -> None:
    layer = _layer(CASES[2])
    x = torch.randn(2, 4, 5, 6)
    set_variant(nn.Sequential(layer), Variant(p=2.0))

    y = layer(x).detach()

    squares = F.conv_transpose2d(x.square(), torch.ones(4, 8, 3, 3), None, 2, 1, 1)
    products = F.conv_transpose2d(x, layer.weight, None, 2, 1, 1)
    weights = _sums_of_seen_weights(layer, x)
    torch.testing.assert_close(y, (2 * products - squares - weights).detach(), rtol=1e-4, atol=1e-4)


def _sums_of_seen_weights(layer: AdderConvTranspose2d, x: Tensor) -> Tensor:
    """The sum of squared weights at each output: those of a larger image of ones, without its edges."""
    margin = 4
    ones = torch.ones(1, 4, x.shape[2] + 2 * margin, x.shape[3] + 2 * margin)
    wide = F.conv_transpose2d(ones, layer.weight.square(), None, 2, 1, 1)
    return wide[:, :, 2 * margin : -2 * margin, 2 * margin : -2 * margin]


def _decoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 4, 2, 1, groups=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.ConvTranspose2d(6, 2, 3, 2, 1, 1),
    )  # fmt: skip


def test_convert_replaces_transposed_convolutions_too() -> None:
    model, x = _decoder(), torch.randn(2, 3, 6, 6)

    network = convert(model, keep=("0", "6"), example=x)

    assert network.conversion.converted == ("3",)
    assert network.conversion.kept == {"0": "named in keep", "6": "named in keep"}
    assert network.conversion.fusion.layers == {"3": True}
    layer = network[3]
    assert isinstance(layer, AdderConvTranspose2d)
    assert layer.offset_free
    assert layer.weight.shape == model[3].weight.shape
    assert network(x).shape == model(x).shape
    assert type(network[4]) is BatchNorm2d


def test_a_training_step_moves_its_filters_by_one_rate() -> None:
    network = convert(_decoder(), keep=("0", "6"))
    (filters, _) = param_groups(network, weight_decay=0.0)
    assert (filters["layer_names"], filters["layer_numel"]) == (["3"], [8 * 3 * 4 * 4])
    optimizer = AdderSGD([filters, _], lr=0.5, eta=0.2, momentum=0.0, nesterov=False)
    before = network[3].weight.detach().clone()

    network(torch.randn(2, 3, 6, 6)).square().sum().backward()
    optimizer.step()

    step = (network[3].weight.detach() - before).square().mean().sqrt()
    assert step.item() == pytest.approx(0.5 * 0.2, rel=1e-4)


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[5]], ids=str)
def test_pairs_are_counted_as_they_are_computed(case: tuple[Any, ...]) -> None:
    layer = _layer(case)
    p, q = layer.geometry.output((5, 6))
    kernel, stride, padding, _, dilation, groups = case
    numbers = [
        (size, size) if isinstance(size, int) else size for size in (kernel, stride, padding, dilation)
    ]
    (rows, columns), (u, v), (a, b), (e, f) = numbers
    expected = sum((i + a - r * e) % u == 0 for i in range(p) for r in range(rows))
    expected *= sum((j + b - s * f) % v == 0 for j in range(q) for s in range(columns))

    count = count_operations(nn.Sequential(layer), (4, 5, 6))

    assert count.adder_elements == expected * 8 * (4 // groups)
    assert count.adder_layers[0].num_weights == layer.filter_numel


def test_the_proof_covers_the_layers_that_compute_it() -> None:
    network = nn.Sequential(_layer(CASES[2], offset_free=True))

    found = layers_of(network, (4, 5, 6), images=2, autocast=None, channels_last=True, device_type="cpu")

    assert {(layer.R, layer.S) for layer in found} == {(2, 2), (2, 1), (1, 2), (1, 1)}
    assert all(name == "0" for names in found.values() for name in names)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: _layer((2, 2, 0, 2, 1, 1)), ValueError, r"less than stride or dilation, \(2, 2\), got 2"),
        (lambda: _layer((2, 2, 0, 0, 1, 3)), ValueError, "groups that divide"),
        (lambda: _layer(CASES[0])(torch.zeros(1, 3, 4, 4)), ValueError, r"x of shape \(N, 4, H, W\)"),
        (lambda: _layer((2, 1, 1, 0, 1, 1))(torch.zeros(1, 4, 1, 1)), ValueError, "at least one pixel"),
    ],
)
def test_what_cannot_be_computed_is_refused(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
