"""Eq. 13 as closed forms."""

import pytest
import torch

from addertrain.optim.scaling import local_rate


@pytest.mark.parametrize("size", [1.0, 1e-12, 1e12])
@pytest.mark.parametrize("numel", [1, 7, 4096])
def test_scaled_gradient_has_rms_eta_whatever_its_size(numel: int, size: float) -> None:
    grad = size * torch.randn(numel, dtype=torch.float64, generator=torch.Generator().manual_seed(numel))
    scaled = local_rate(grad.square().sum(), numel, 0.2) * grad
    torch.testing.assert_close(scaled.square().mean().sqrt().item(), 0.2, rtol=1e-14, atol=0)


def test_rate_of_known_values() -> None:
    rate = local_rate(torch.tensor([4.0, 9.0]), torch.tensor([16.0, 81.0]), 0.5)
    assert rate.tolist() == [1.0, 1.5]  # 0.5 * sqrt(16) / 2, 0.5 * sqrt(81) / 3


def test_zero_gradient_gets_rate_zero_and_spares_its_neighbours() -> None:
    rate = local_rate(torch.tensor([0.0, 1.0]), torch.tensor([5.0, 4.0]), 0.2)
    assert rate.tolist() == pytest.approx([0.0, 0.4])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_gradient_stays_non_finite(bad: float) -> None:
    grad = torch.tensor([1.0, bad])
    assert not torch.isfinite(local_rate(grad.square().sum(), 2, 0.2) * grad).all()
