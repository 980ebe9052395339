"""Sums of squares on GPUs, emulated: every type, places in memory, more tensors than a launch takes."""

import math

import pytest
import torch
from torch import Tensor

from tests.kernels.emulated import EmulatedKernels

PIECE = 16_384
"""Values of a block (device/squares.h)."""


def _expected(tensors: list[Tensor]) -> Tensor:
    return torch.stack([each.double().square().sum() for each in tensors])


def _check(emulator: EmulatedKernels, tensors: list[Tensor]) -> None:
    torch.testing.assert_close(emulator.sums_of_squares(tensors), _expected(tensors), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_pieces_and_tails(emulator: EmulatedKernels, dtype: torch.dtype) -> None:
    _check(
        emulator, [torch.randn(size).to(dtype) for size in (1, 3, 0, 1000, PIECE, PIECE + 1, 3 * PIECE - 5)]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_a_tensor_begins_does_not_change_a_bit(emulator: EmulatedKernels, dtype: torch.dtype) -> None:
    values = torch.randn(2 * PIECE + 7).to(dtype)
    places = [torch.cat([values[:shift], values])[shift:] for shift in range(8)]
    found = emulator.sums_of_squares(places).tolist()
    assert found == [found[0]] * 8
    _check(emulator, places[:1])


def test_more_tensors_than_a_launch_takes_and_of_several_types(emulator: EmulatedKernels) -> None:
    dtypes = (torch.float32, torch.float32, torch.bfloat16, torch.float64)
    _check(emulator, [torch.randn(1 + 37 * i % 200).to(dtypes[i // 40]) for i in range(160)])
    _check(emulator, [torch.randn(5) for _ in range(129)])
    _check(emulator, [torch.zeros(0), torch.zeros(0)])


def test_what_is_not_finite_and_what_float32_does_not_hold(emulator: EmulatedKernels) -> None:
    found = emulator.sums_of_squares([torch.tensor([1.0, bad]) for bad in (math.nan, math.inf, -math.inf)])
    assert found[0].isnan()
    assert found[1:].tolist() == [math.inf, math.inf]
    _check(emulator, [torch.full((PIECE + 3,), value) for value in (1e-45, 3.4e38)])
