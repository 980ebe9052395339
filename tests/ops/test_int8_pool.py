"""Maxima and sums over the pixels of bytes are torch's, on every instruction set."""

import pytest
import torch
from torch import Tensor

from addertrain.ops.int8_pool import max_pool_int8, reference_maxima, reference_sums, sum_pixels_int8
from tests import instruction_sets

on_every_set = pytest.mark.parametrize("name", instruction_sets.NAMES_FOR_BYTES)


def images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(shape[1]))


@on_every_set
@pytest.mark.parametrize(
    "window", [([3, 3], [2, 2], [1, 1]), ([2, 3], [1, 2], [0, 1]), ([1, 1], [3, 3], [0, 0])]
)
def test_maxima(name: str, window: tuple[list[int], ...]) -> None:
    with instruction_sets.chosen(name):
        for x in (images(2, 64, 9, 8), images(1, 5, 4, 7).to(memory_format=torch.channels_last)):
            got = max_pool_int8(x, *window)

            assert torch.equal(got, reference_maxima(x, *window))
            assert got.is_contiguous(memory_format=torch.channels_last)


@on_every_set
def test_sums(name: str) -> None:
    with instruction_sets.chosen(name):
        for x in (images(3, 70, 7, 7), torch.full((1, 3, 300, 300), 255, dtype=torch.uint8)):
            assert torch.equal(sum_pixels_int8(x), reference_sums(x))


@on_every_set
def test_sums_beyond_32_bits(name: str) -> None:
    x = torch.full((1, 1, 2903, 2903), 255, dtype=torch.uint8)
    with instruction_sets.chosen(name):
        assert sum_pixels_int8(x).item() == reference_sums(x).item() == 255 * 2903**2 > 2**31


def test_windows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RuntimeError, match="expected a window that fits"):
        max_pool_int8(images(1, 4, 2, 2), [3, 3], [1, 1], [0, 0])


def test_opcheck() -> None:
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    x = images(2, 6, 5, 7)

    torch.library.opcheck(
        torch.ops.addertrain.max_pool_int8.default, (x, [3, 2], [2, 1], [1, 0]), test_utils=checks
    )
    torch.library.opcheck(torch.ops.addertrain.sum_pixels_int8.default, (x,), test_utils=checks)
