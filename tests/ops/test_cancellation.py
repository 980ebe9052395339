"""x and F near each other and far from 0: the response keeps the digits of the plain sum of |x - w|."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from addertrain.ops import reference, schemas
from addertrain.ops.tolerance import SAFETY, unit_roundoff
from tests.ops.implementations import Implementation
from tests.ops.layers import Layer
from tests.ops.threads import differing

LAYERS = [
    Layer(2, 64, 40, 9, 9, 3, 3),  # rows of neighbours, filters in blocks of several registers
    Layer(3, 7, 17, 9, 8, 3, 3, stride=(2, 1)),  # no whole register, taps one by one
    Layer(2, 16, 16, 8, 8, 3, 3),  # lists of positive taps, where the instruction set has them
    Layer(2, 5, 6, 9, 11, 5, 5, dilation=(1, 2)),
    Layer(5, 300, 10, 1, 1, 1, 1),  # a fully connected layer
    Layer(1, 256, 64, 6, 6, 3, 3),  # filters in several passes
]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(params=["avx512", "avx2", "portable"])
def instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    with Implementation(request.param).use():
        yield


def _near(layer: Layer, offset: float, is_alternating: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = offset + torch.rand(layer.N, layer.C, layer.H, layer.W, generator=generator)
    w = offset + torch.rand(layer.O, layer.C, layer.R, layer.S, generator=generator)
    if is_alternating:
        sign = torch.tensor([1.0, -1.0]).repeat(layer.C)[: layer.C].view(1, -1, 1, 1)
        return x * sign, w * sign
    return x, w


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("offset", [-1000.0, 10.0])
@pytest.mark.parametrize("is_alternating", [False, True])
def test_responses_keep_the_digits_of_the_plain_sum(
    layer: Layer, offset: float, is_alternating: bool
) -> None:
    x, w = _near(layer, offset, is_alternating)
    distance = -reference.adder2d(x.double(), w.double(), *layer.sizes, False)
    from_sum = SAFETY * w[0].numel() ** 0.5 * unit_roundoff(torch.float32) * distance
    for layout in LAYOUTS:
        y = schemas.ADDER2D(x.to(memory_format=layout), w, *layer.sizes, False)
        assert ((y.double() + distance).abs() <= from_sum).all()


@pytest.mark.usefixtures("instruction_set")
def test_an_offset_free_response_is_rounded_as_large_as_it_is() -> None:
    """Y + sum |F| is as large as sum |F| here, and no float32 number says it better than to half an ulp."""
    layer = LAYERS[0]
    x, w = _near(layer, 1000.0, is_alternating=False)
    expected = reference.adder2d(x.double(), w.double(), *layer.sizes, True)
    y = schemas.ADDER2D(x, w, *layer.sizes, True)
    assert ((y.double() - expected).abs() <= 2 * unit_roundoff(torch.float32) * expected.abs()).all()


@pytest.mark.usefixtures("instruction_set")
def test_a_response_depends_on_its_own_patch_alone() -> None:
    """Beside an image that is near the filters, another one gives the bits that it gives alone."""
    layer = LAYERS[0]
    near, w = _near(layer, 1000.0, is_alternating=False)
    far = near + 5000 * torch.rand(near.shape, generator=torch.Generator().manual_seed(1))
    both = schemas.ADDER2D(torch.cat([near, far]), w, *layer.sizes, False)
    assert torch.equal(both[:2], schemas.ADDER2D(near, w, *layer.sizes, False))
    assert torch.equal(both[2:], schemas.ADDER2D(far, w, *layer.sizes, False))


def test_threads_change_no_bit() -> None:
    layer = LAYERS[0]
    x, w = _near(layer, 255.0, is_alternating=True)
    assert not differing(lambda: [schemas.ADDER2D(x.repeat(8, 1, 1, 1), w, *layer.sizes, False)])


def test_not_a_number_stays_where_it_is() -> None:
    layer = LAYERS[0]
    x, w = _near(layer, 1000.0, is_alternating=False)
    x[0, 3, 4, 4], x[1, 2, 1, 1], w[5, 0, 0, 0] = torch.nan, torch.inf, torch.nan
    expected = reference.adder2d(x.double(), w.double(), *layer.sizes, False)
    y = schemas.ADDER2D(x, w, *layer.sizes, False)
    assert torch.equal(y.isnan() | y.isinf(), expected.isnan() | expected.isinf())
