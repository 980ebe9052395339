"""Squared norms of a list of gradients."""

import pytest
import torch

from addertrain.optim.gradient_norms import sq_norms
from tests.optim.tolerances import FLOAT64_SUM


def _gradients(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 3, 3, 3), (7, 5), (1,)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_matches_the_sum_of_squares_in_float64(dtype: torch.dtype) -> None:
    grads = _gradients(dtype)
    expected = torch.stack([grad.double().square().sum() for grad in grads])
    found = sq_norms(grads)
    torch.testing.assert_close(found, expected, rtol=FLOAT64_SUM, atol=0)


def test_half_precision_does_not_overflow() -> None:
    assert sq_norms([torch.full((4,), 1000.0, dtype=torch.float16)]).item() == pytest.approx(4e6)


def test_layout_does_not_matter() -> None:
    grad = _gradients(torch.float64)[0]
    last = grad.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(sq_norms([last]), sq_norms([grad]), rtol=1e-15, atol=0)


def test_missing_gradient_counts_as_zero_in_its_place() -> None:
    assert sq_norms([torch.ones(3), None, torch.ones(5)]).tolist() == pytest.approx([3.0, 0.0, 5.0])


def test_no_gradient_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one gradient"):
        sq_norms([None])
