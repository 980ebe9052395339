"""Padding of layers: torch's "same", its modes and sequences, against Eq. 2 on what torch pads."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addertrain.interchange.own_operator import in_own_operators
from addertrain.interchange.standard import in_standard_operations
from addertrain.nn import AdderConv1d, AdderConv2d, BatchNorm2d, adder_norm, convert
from addertrain.nn.int8 import Grid, Int8AdderConv2d
from addertrain.ops import reference
from addertrain.proof import CompiledOperators, layers_of, prove

MODES = ["zeros", "reflect", "replicate", "circular"]


def _expected(layer: AdderConv2d, convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Eq. 2 in float64 on the image as `convolution` pads it."""
    edges: Any = convolution._reversed_padding_repeated_twice
    mode = "constant" if convolution.padding_mode == "zeros" else convolution.padding_mode
    image = F.pad(x.double(), list(edges), mode)
    return reference.adder2d(
        image, layer.weight.double(), layer.stride, (0, 0), layer.dilation, layer.offset_free
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", [(1, 2), "same", "valid"], ids=str)
@pytest.mark.parametrize(("kernel", "dilation", "groups"), [((3, 4), (1, 1), 1), ((2, 3), (3, 2), 4)])
def test_layers_pad_as_torchs_convolution_does(
    mode: str, padding: Any, kernel: tuple[int, int], dilation: tuple[int, int], groups: int
) -> None:
    settings: dict[str, Any] = {
        "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": mode, "bias": False,
    }  # fmt: skip
    convolution = nn.Conv2d(4, 8, kernel, **settings)
    x = torch.randn(2, 4, 9, 8).to(memory_format=torch.channels_last)

    layer = convert(convolution, offset_free=False)
    y = layer(x)

    assert y.shape == convolution(x).shape
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.double(), _expected(layer, convolution, x), rtol=1e-5, atol=1e-5)
    y.square().sum().backward()
    assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("mode", MODES)
def test_what_reads_a_layers_padding_reads_its_edges_too(mode: str) -> None:
    layer = AdderConv2d(3, 6, 2, padding="same", padding_mode=mode, offset_free=True, groups=3)
    norm, grid = BatchNorm2d(6), Grid.over(-4.0, 4.0)
    x = grid.values_of(torch.randint(0, 256, (2, 3, 6, 5), dtype=torch.uint8)).float()
    with torch.no_grad():
        layer.weight.copy_(grid.values_of(grid.bytes_of(layer.weight)))
    expected = layer(x).detach()

    torch.testing.assert_close(in_standard_operations(layer)(x), expected, rtol=1e-5, atol=1e-5)
    assert in_own_operators(layer)(x).shape == expected.shape
    torch.testing.assert_close(Int8AdderConv2d(layer, grid)(x), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(adder_norm(layer, norm, x), norm(expected))
    layers = layers_of(layer, (3, 6, 5), images=2, autocast=None, channels_last=True, device_type="cpu")
    assert [(proven.H, proven.W, proven.output) for proven in layers] == [(6, 6, (5, 5))]
    assert not prove(layers, CompiledOperators(torch.device("cpu"))).failures


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("stride", "padding", "groups"), [(2, 3, 1), (1, "same", 2)], ids=str)
def test_a_sequence_is_an_image_of_one_row(mode: str, stride: int, padding: Any, groups: int) -> None:
    settings: dict[str, Any] = {"padding": padding, "dilation": 2, "groups": groups, "padding_mode": mode}
    layer = AdderConv1d(4, 6, 4, stride, bias=True, **settings)
    nn.init.normal_(layer.conv.bias)
    torchs = nn.Conv1d(4, 6, 4, stride, **settings)
    x = torch.randn(3, 4, 13)

    y = layer(x)

    edges = list(torchs._reversed_padding_repeated_twice)
    sequence = F.pad(x.double(), edges, "constant" if mode == "zeros" else mode)
    rows = (sequence.unsqueeze(2), layer.conv.weight.double())
    expected = reference.adder2d(*rows, (1, stride), (0, 0), (1, 2), False).squeeze(2)
    assert y.shape == torchs(x).shape
    expected = expected + layer.conv.bias.double().view(-1, 1)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 2, 1), ((5, 2), (2, 3), 1), (1, 2, 1), (2, 3, 2), (3, 1, (1, 2))]
)
@pytest.mark.parametrize("size", [(8, 9), (7, 5)])
def test_same_with_a_stride_gives_a_position_for_every_step(
    kernel: Any, stride: Any, dilation: Any, size: tuple[int, int]
) -> None:
    layer = AdderConv2d(2, 3, kernel, stride, "same", dilation, offset_free=True)
    x = torch.randn(2, 2, *size)

    y = layer(x)

    assert y.shape[2:] == tuple(-(-pixels // step) for pixels, step in zip(size, layer.stride, strict=True))
    wide = x.double()
    for axis in (2, 3):  # the pixels that the last step lacks, the odd one behind
        taps, step, spread = (pair[axis - 2] for pair in (layer.kernel_size, layer.stride, layer.dilation))
        lacks = max((y.shape[axis] - 1) * step + spread * (taps - 1) + 1 - x.shape[axis], 0)
        edges = [lacks // 2, lacks - lacks // 2]
        wide = F.pad(wide, edges if axis == 3 else [0, 0, *edges])
    expected = reference.adder2d(wide, layer.weight.double(), layer.stride, (0, 0), layer.dilation, True)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(in_standard_operations(layer)(x), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: AdderConv2d(3, 4, 3, padding_mode="wrap"),
            "one of zeros, reflect, replicate, circular, got",
        ),
        (lambda: AdderConv1d(3, 4, 3)(torch.zeros(3, 9)), r"x of shape \(N, C, L\), got \(3, 9\)"),
    ],
)
def test_what_torch_refuses_is_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
