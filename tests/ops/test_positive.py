"""The forward pass where filters walk lists of positive taps: what test_table.py does not see."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from addertrain.ops import reference, schemas
from tests.ops.answers import data_of
from tests.ops.implementations import COMPILED, name_of
from tests.ops.layers import TABLE, Layer
from tests.ops.threads import differing

LAYERS = TABLE["rows"]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
WITH_LISTS = [one for one in COMPILED if one.name in ("avx512", "avx2")]


@pytest.fixture(autouse=True, params=WITH_LISTS, ids=name_of)
def set_with_lists(request: pytest.FixtureRequest) -> Iterator[None]:
    with request.param.use():
        yield


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_one_negative_input_takes_its_unit_another_way(layout: torch.memory_format) -> None:
    """Wherever it lies, and beside a NaN too, which a minimum would forget."""
    for layer in LAYERS[:4]:
        data = data_of(layer, torch.float32, behind_relu=True)
        for place in ((0, 0, 0, 0), (layer.N - 1, layer.C - 1, layer.H - 1, layer.W - 1)):
            x = data.x.clone()
            x[place] = -1.5
            y = schemas.ADDER2D(x.to(memory_format=layout), data.w, *layer.sizes, True)
            expected = reference.adder2d(x.double(), data.w.double(), *layer.sizes, True)
            error = float((y.double() - expected).abs().max() / expected.abs().max())
            assert error < 1e-5, f"{layer}, x{place}: {error}"


def test_a_nan_hides_no_negative_input() -> None:
    layer = Layer(1, 16, 16, 8, 16, 3, 3, padding=(1, 1))
    data = data_of(layer, torch.float32, behind_relu=True)
    for lane in range(16):
        x = data.x.clone().contiguous(memory_format=torch.channels_last)
        x[0, lane, 0, 0], x[0, lane, 0, 1], x[0, lane, 0, 2] = -3.0, torch.nan, 0.0

        y = schemas.ADDER2D(x, data.w, *layer.sizes, True)

        expected = reference.adder2d(x.double(), data.w.double(), *layer.sizes, True)
        assert torch.equal(y.isnan(), expected.isnan())
        is_number = ~expected.isnan()
        torch.testing.assert_close(y.double()[is_number], expected[is_number], rtol=1e-4, atol=1e-4)


def test_only_negative_weights_and_only_zeros() -> None:
    """Nothing to add up: the response is -sum x, and 0, to the last bit."""
    for layer in LAYERS:
        data = data_of(layer, torch.float32, behind_relu=True)
        zeros = torch.zeros_like(data.x)
        x = data.x.mul(8).round()  # sums of integers are exact
        ones = torch.ones_like(data.w, dtype=torch.float64)
        expected = reference.adder2d(x.double(), -ones, *layer.sizes, True)

        assert torch.equal(schemas.ADDER2D(zeros, data.w, *layer.sizes, True), _zeros(layer))
        assert torch.equal(schemas.ADDER2D(x, -data.w.abs(), *layer.sizes, True).double(), expected)


def _zeros(layer: Layer) -> Tensor:
    return torch.zeros(layer.N, layer.O, *layer.output)


def test_what_is_not_finite_reaches_the_response() -> None:
    layer = LAYERS[0]
    data = data_of(layer, torch.float32, behind_relu=True)
    for value in (torch.nan, torch.inf):
        x, w = data.x.clone(), data.w.clone()
        x[1, 2, 3, 4], w[7, 1, 0, 2] = value, value

        y_of_x = schemas.ADDER2D(x, data.w, *layer.sizes, True)
        y_of_w = schemas.ADDER2D(data.x, w, *layer.sizes, True)

        assert not y_of_x[1, :, 2:5, 3:6].isfinite().any()
        assert y_of_x[[0, 2]].isfinite().all()
        assert not y_of_w[:, 7].isfinite().any()
        assert y_of_w[:, :7].isfinite().all()


def test_the_same_bits_for_any_number_of_threads() -> None:
    every = [(layer, data_of(layer, torch.float32, behind_relu=True)) for layer in LAYERS]
    assert not differing(
        lambda: [schemas.ADDER2D(data.x, data.w, *layer.sizes, True) for layer, data in every]
    )
