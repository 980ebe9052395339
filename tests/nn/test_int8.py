"""Adder layers on bytes: exact on the grid, near it elsewhere, and gone afterwards."""

import pytest
import torch
from torch import Tensor, nn

from addertrain.nn import AdderConv2d, BatchNorm2d
from addertrain.nn.int8 import Grid, Int8AdderConv2d, calibrate, in_int8
from addertrain.ops.variants import Variant


def _layer(*, padding: int = 1, offset_free: bool = True, bias: bool = False) -> AdderConv2d:
    return AdderConv2d(6, 8, 3, padding=padding, offset_free=offset_free, bias=bias)


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-2.0, 3.0), (1.0, 4.0), (-3.0, -1.0), (0.0, 0.0)])
def test_a_grid_holds_zero_and_its_ends(low: float, high: float) -> None:
    grid = Grid.over(low, high)
    values = torch.tensor([0.0, low, high])

    assert grid.values_of(grid.bytes_of(values))[0] == 0
    assert (grid.values_of(grid.bytes_of(values)) - values).abs().max() <= grid.scale


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_numbers_of_16_bits_get_the_nearest_bytes(dtype: torch.dtype) -> None:
    grid, values = Grid.over(-1.7, 9.3), torch.linspace(-1.7, 9.3, 1001).to(dtype)

    assert torch.equal(grid.bytes_of(values), grid.bytes_of(values.double()))


def test_a_nan_gives_byte_0() -> None:
    for count in (1, 7, 64, 1000):  # vectors and what is left of them
        values = torch.full((count,), torch.nan)

        assert not Grid.over(-2.0, 6.0).bytes_of(values).any()


@pytest.mark.parametrize("low", [0.0, -2.0], ids=["behind a ReLU", "signed"])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("offset_free", [False, True])
def test_numbers_on_the_grid_are_exact(low: float, padding: int, offset_free: bool) -> None:
    """Filters too, wherever they are: beyond the grid they are clipped, and the rest is constant."""
    grid = Grid.over(low, 4.0)
    layer = _layer(padding=padding, offset_free=offset_free, bias=True)
    x = grid.values_of(torch.randint(0, 256, (2, 6, 7, 5), dtype=torch.uint8)).float()
    with torch.no_grad():
        inside = grid.values_of(grid.bytes_of(layer.weight))
        far = 9 * layer.weight.sign()
        layer.weight.copy_(torch.where(torch.rand_like(layer.weight) < 0.3, far, inside))

    y = Int8AdderConv2d(layer, grid)(x)

    torch.testing.assert_close(y, layer(x), rtol=1e-5, atol=1e-4 * float(layer(x).detach().abs().max()))


def test_other_numbers_are_off_by_half_a_step_an_operand() -> None:
    layer, x = _layer(), torch.rand(4, 6, 9, 9) * 3
    grid = Grid.over(0.0, 3.0)

    error = (Int8AdderConv2d(layer, grid)(x) - layer(x)).abs()

    assert error.max() <= layer.weight[0].numel() * grid.scale
    assert error.mean() <= layer.weight[0].numel() ** 0.5 * grid.scale  # steps are independent


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = _layer()
        self.body = nn.Sequential(BatchNorm2d(8, relu=True), AdderConv2d(8, 4, 1, offset_free=True))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(self.first(x))
        return y


def test_calibration_sees_every_layers_inputs() -> None:
    model = _Network().eval()
    batches = [torch.rand(2, 6, 5, 5) * 2 - 0.5 for _ in range(3)]

    grids = calibrate(model, iter(batches))

    assert set(grids) == {"first", "body.1"}
    low, high = min(float(b.min()) for b in batches), max(float(b.max()) for b in batches)
    assert grids["first"] == Grid.over(low, high)
    assert grids["body.1"].zero == 0  # behind a ReLU


def test_the_model_is_itself_again_afterwards() -> None:
    model = _Network().eval()
    x = torch.rand(2, 6, 5, 5)
    before = model(x)
    grids = calibrate(model, [x])

    with in_int8(model, grids):
        assert isinstance(model.first, Int8AdderConv2d)
        in_bytes = model(x)
    after = model(x)

    assert torch.equal(before, after)
    assert not torch.equal(in_bytes, before)
    assert (in_bytes - before).abs().mean() < 0.1 * before.std()


def test_other_powers_stay_in_float() -> None:
    model = _Network().eval()
    model.first.variant = Variant(p=1.5)

    assert set(calibrate(model, [torch.rand(2, 6, 5, 5)])) == {"body.1"}


@pytest.mark.parametrize("batches", [[], [torch.empty(0, 6, 5, 5)]], ids=["no batch", "no image"])
def test_without_images_nothing_can_be_calibrated(batches: list[Tensor]) -> None:
    with pytest.raises(ValueError, match=r"calibrate: expected at least one batch .*; give some"):
        calibrate(_Network().eval(), batches)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_layer_that_reads_no_finite_numbers_is_named(value: float) -> None:
    x = torch.rand(2, 6, 5, 5)
    x[1, 2, 3, 4] = value

    with pytest.raises(ValueError, match=r"calibrate: expected finite numbers at layer first, got"):
        calibrate(_Network().eval(), [x])


def test_a_layer_in_two_places_computes_in_bytes_in_both() -> None:
    layer = AdderConv2d(4, 4, 3, padding=1, offset_free=True)
    model = nn.Sequential(layer, nn.ReLU(), layer).eval()
    x = torch.rand(2, 4, 5, 5)
    grids = calibrate(model, [x])

    with in_int8(model, grids):
        assert [isinstance(module, Int8AdderConv2d) for module in model] == [True, False, True]
    assert [module is layer for module in model] == [True, False, True]
    assert grids["0"] == grids["2"]


def test_a_layer_alone_cannot_be_replaced() -> None:
    with pytest.raises(ValueError, match=r"calibrate: expected a network .* got AdderConv2d itself; put"):
        calibrate(_layer(), [torch.rand(2, 6, 5, 5)])
