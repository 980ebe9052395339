"""Convolutions of 16-bit operands: the bits of one step after the other, on every instruction set."""

import pytest
import torch
from torch import Tensor

from addertrain.ops.int16 import (
    MOST_SUM,
    MOST_X,
    conv2d_int16,
    integer_filters,
    pack_int16,
    reference_convolution,
)
from tests import instruction_sets
from tests.ops.layers import Layer

LAYERS = [
    Layer(2, 3, 64, 21, 18, 7, 7, (2, 2), (3, 3)),
    Layer(1, 3, 16, 9, 8, 3, 3, padding=(1, 1)),
    Layer(2, 5, 70, 6, 7, 3, 2, (1, 2), (2, 1)),
    Layer(3, 96, 37, 1, 1, 1, 1),
]
on_every_set = pytest.mark.parametrize("name", instruction_sets.NAMES_FOR_BYTES)


def operands(layer: Layer) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """x, the filters as integers, and a scale and a shift that spread results over 0 .. 255 and beyond."""
    generator = torch.Generator().manual_seed(layer.C)
    x = torch.randn(layer.N, layer.C, layer.H, layer.W, generator=generator)
    w, step = integer_filters(torch.randn(layer.filter_shape, generator=generator))
    scale = 60.0 * step.float() * 3.0 / MOST_X / w[0].numel() ** 0.5
    return x, w, {"scale": scale, "shift": 100.0 + torch.randn(layer.O, generator=generator)}


@on_every_set
@pytest.mark.parametrize("low", [None, 0, 61])
def test_bits_of_the_reference(name: str, low: int | None) -> None:
    with instruction_sets.chosen(name):
        for layer in LAYERS:
            x, w, norm = operands(layer)
            stride, padding = list(layer.stride), list(layer.padding)
            factor = MOST_X / 3.0  # normal numbers beyond 3 are clipped
            packed = pack_int16(w)

            got = conv2d_int16(x, w, packed, stride, padding, factor=factor, low=low, **norm)

            expected = reference_convolution(
                x, w, packed, stride, padding, factor, *norm.values(), None if low is None else float(low)
            )
            assert torch.equal(got, expected), str(layer)
            assert got.dtype == (torch.float32 if low is None else torch.uint8)
            assert len(got.unique()) > 50  # the case spreads over the results


@on_every_set
def test_a_nan_counts_as_the_least_number(name: str) -> None:
    with instruction_sets.chosen(name):
        for layer in LAYERS:
            x, w, norm = operands(layer)
            x[:, :, ::2, 0] = torch.nan
            norm["scale"][::3] = torch.nan
            packed = pack_int16(w)
            for low in (None, 0, 61):
                given = (list(layer.stride), list(layer.padding))
                got = conv2d_int16(x, w, packed, *given, factor=MOST_X / 3.0, low=low, **norm)

                least = None if low is None else float(low)
                expected = reference_convolution(x, w, packed, *given, MOST_X / 3.0, *norm.values(), least)
                torch.testing.assert_close(got, expected, rtol=0.0, atol=0.0, equal_nan=True)
                assert (got[:, ::3].isnan() if low is None else got[:, ::3] == low).all()
                assert not got[:, 1::3].isnan().any()


def test_filters_are_as_fine_as_their_sums_allow() -> None:
    few, many = torch.randn(8, 3, 7, 7), torch.randn(8, 2048, 1, 1)
    few[0] = 0.0

    for weight in (few, many):
        integers, step = integer_filters(weight)

        assert integers.dtype == torch.int16
        assert (integers.long().abs().flatten(1).sum(1) * MOST_X).max() <= MOST_SUM
        error = (integers.double() * step.view(-1, 1, 1, 1) - weight.double()).abs()
        assert (error <= 0.5001 * step.view(-1, 1, 1, 1)).all()
        assert (step < weight.abs().flatten(1).amax(1) / 500).sum() >= 7  # finer than bytes


def test_the_largest_sums_are_exact() -> None:
    """Inputs and filters at their ends, which is as near to 2^31 as sums come."""
    w, _ = integer_filters(torch.full((16, 2048, 1, 1), -1.0))
    x = torch.full((1, 2048, 1, 1), 1e9)
    norm = {"scale": torch.ones(16), "shift": torch.zeros(16)}
    expected = float(w[0].double().sum() * MOST_X)
    assert abs(expected) > 0.9 * MOST_SUM

    for name in instruction_sets.NAMES_FOR_BYTES:
        if instruction_sets.choose(name):
            y = conv2d_int16(x, w, pack_int16(w), [1, 1], [0, 0], factor=1.0, **norm)
            assert (y == torch.tensor(expected)).all()
    instruction_sets.restore()


def test_other_operands_are_refused() -> None:
    x, w, norm = operands(LAYERS[1])

    with pytest.raises(ValueError, match="pack_int16: expected weight in int16"):
        pack_int16(w.float())
    with pytest.raises(RuntimeError, match="packed by conv2d_int16_pack"):
        conv2d_int16(x, w, pack_int16(w[:8]), [1, 1], [1, 1], factor=1.0, **norm)


def test_opcheck() -> None:
    x, w, norm = operands(LAYERS[2])
    arguments = (x, w, pack_int16(w), [1, 2], [2, 1], 100.0, *norm.values())
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")

    for low in (None, 3.0):
        torch.library.opcheck(torch.ops.addertrain.conv2d_int16.default, (*arguments, low), test_utils=checks)
