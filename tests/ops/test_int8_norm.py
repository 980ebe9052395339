"""An adder layer, its norm and rounding to bytes in one pass: the bytes of one step after the other."""

import pytest
import torch
from torch import Tensor

from addertrain.ops.int8_norm import (
    adder2d_int8_norm,
    pack_int8,
    quantise_int8,
    reference_norm,
    reference_quantisation,
)
from tests import instruction_sets
from tests.ops.layers import Layer

LAYERS = [
    Layer(2, 16, 16, 9, 8, 3, 3, padding=(1, 1)),
    Layer(2, 64, 70, 7, 7, 3, 3, (2, 2), (1, 1)),
    Layer(1, 24, 200, 11, 10, 1, 1),
    Layer(3, 5, 9, 6, 7, 3, 2, (1, 2), (2, 1)),  # patches are gathered
    Layer(1, 8, 33, 12, 40, 3, 3, (2, 2), (2, 2), (2, 2)),
]
on_every_set = pytest.mark.parametrize("name", instruction_sets.NAMES_FOR_BYTES)


def operands(layer: Layer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """x and weight; scale, shift and residual that spread the results over 0 .. 255 and beyond."""
    generator = torch.Generator().manual_seed(layer.C)

    def bytes_(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    x, w = bytes_(layer.N, layer.C, layer.H, layer.W), bytes_(*layer.filter_shape)
    spread = 3.0 / w[0].numel() ** 0.5
    scale = -spread * (0.5 + torch.rand(layer.O, generator=generator))
    shift = 128.0 - scale * 85.0 * w[0].numel() + torch.randn(layer.O, generator=generator)
    return {"x": x, "weight": w}, {
        "scale": scale, "shift": shift, "residual": bytes_(layer.N, layer.O, *layer.output)
    }  # fmt: skip


@on_every_set
@pytest.mark.parametrize("outside", [0, 93])
@pytest.mark.parametrize("has_residual", [False, True])
def test_bytes_of_one_pass(name: str, outside: int, has_residual: bool) -> None:
    with instruction_sets.chosen(name):
        for layer in LAYERS:
            given, norm = operands(layer)
            residual = norm.pop("residual")
            beside = residual if has_residual else None
            packed = pack_int8(given["weight"])
            for low in (0, 61):
                rest = {**norm, "outside": outside, "residual": beside, "residual_scale": -0.37, "low": low}
                got = adder2d_int8_norm(**given, packed=packed, **layer_sizes(layer), **rest)

                expected = reference_norm(
                    *given.values(), packed, *layer.sizes, outside, *norm.values(), beside, -0.37, float(low)
                )
                assert torch.equal(got, expected), str(layer)
                assert got.is_contiguous(memory_format=torch.channels_last)
                assert len(got.unique()) > 50  # the case spreads over the bytes


def layer_sizes(layer: Layer) -> dict[str, list[int]]:
    return dict(zip(("stride", "padding", "dilation"), map(list, layer.sizes), strict=True))


@on_every_set
def test_quantisation_rounds_ties_to_even_and_clips(name: str) -> None:
    ends = torch.tensor([-1e9, -0.5, 0.5, 1.5, 254.5, 255.5, 1e9])
    x = torch.cat([ends, torch.linspace(-20.0, 300.0, 1013)]).view(1, 4, 5, 51)
    with instruction_sets.chosen(name):
        assert quantise_int8(x, 1.0).flatten()[:7].tolist() == [0, 0, 0, 2, 254, 255, 255]
        for factor, zero in ((1.0, 0.0), (0.731, 17.0)):
            assert torch.equal(quantise_int8(x, factor, zero), reference_quantisation(x, factor, zero))


@on_every_set
def test_a_nan_gives_the_least_byte(name: str) -> None:
    with instruction_sets.chosen(name):
        for layer in LAYERS:
            given, norm = operands(layer)
            norm["scale"][::3], norm["shift"][1::3] = torch.nan, torch.nan
            packed = pack_int8(given["weight"])
            for low in (0, 61):
                got = adder2d_int8_norm(
                    **given, packed=packed, **layer_sizes(layer), **norm, residual_scale=0.3, low=low
                )

                expected = reference_norm(
                    *given.values(), packed, *layer.sizes, 0, *norm.values(), 0.3, float(low)
                )
                assert torch.equal(got, expected), str(layer)
                assert (got[:, ::3] == low).all()
                assert (got[:, 1::3] == low).all()
                assert len(got[:, 2::3].unique()) > 50
        x = torch.linspace(-1.0, 300.0, 70).view(1, 2, 5, 7)
        x[0, :, 1::2] = torch.nan
        assert torch.equal(quantise_int8(x, 0.9, 3.0), quantise_int8(x.nan_to_num(nan=-1e9), 0.9, 3.0))


def test_filters_packed_for_another_set_are_refused() -> None:
    layer = LAYERS[0]
    given, norm = operands(layer)
    with instruction_sets.chosen("portable"):
        packed = pack_int8(given["weight"])
    del norm["residual"]
    for name in ("avx512", "avx2"):
        if instruction_sets.choose(name):
            with pytest.raises(RuntimeError, match="packed by adder2d_int8_pack"):
                adder2d_int8_norm(**given, packed=packed, **layer_sizes(layer), **norm)
    instruction_sets.restore()


def test_other_types_are_refused() -> None:
    x = torch.zeros(1, 4, 4, 4)

    with pytest.raises(ValueError, match="pack_int8: expected weight in uint8"):
        pack_int8(x)
    with pytest.raises(ValueError, match="adder2d_int8_norm: expected x and weight in uint8"):
        adder2d_int8_norm(x, x, x, [1, 1], [0, 0], [1, 1], scale=torch.ones(1), shift=torch.ones(1))


def test_opcheck() -> None:
    layer = LAYERS[3]
    given, norm = operands(layer)
    packed = pack_int8(given["weight"])
    arguments = (*given.values(), packed, *map(list, layer.sizes), 7, *norm.values(), 0.5, 3.0)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")

    torch.library.opcheck(torch.ops.addertrain.adder2d_int8_norm.default, arguments, test_utils=checks)
    torch.library.opcheck(
        torch.ops.addertrain.quantise_int8.default, (torch.randn(2, 3, 4, 5), 2.0, 9.0), test_utils=checks
    )
