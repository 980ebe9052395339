"""Fits and formulas of a report, against what they are said to be."""

import math

import pytest
import torch
from torch import Tensor

from addertrain.report.fits import fit_gauss, fit_laplace, gauss_density, laplace_density
from addertrain.report.sections.dynamics import equilibrium_rms


def _laplace(num: int) -> Tensor:
    return torch.distributions.Laplace(0.5, 2.0).sample((num,)).double()


def test_log_likelihood_is_the_mean_log_of_the_density() -> None:
    w = _laplace(5000)

    gauss, laplace = fit_gauss(w), fit_laplace(w)

    assert gauss.log_likelihood == pytest.approx(float(gauss_density(w, gauss).log().mean()))
    assert laplace.log_likelihood == pytest.approx(float(laplace_density(w, laplace).log().mean()))


def test_densities_are_torchs() -> None:
    x = torch.linspace(-5, 5, 11, dtype=torch.float64)
    w = _laplace(100)
    gauss, laplace = fit_gauss(w), fit_laplace(w)

    normal = torch.distributions.Normal(*map(torch.tensor, (gauss.location, gauss.scale)))
    tent = torch.distributions.Laplace(*map(torch.tensor, (laplace.location, laplace.scale)))
    torch.testing.assert_close(gauss_density(x, gauss).float(), normal.log_prob(x.float()).exp())
    torch.testing.assert_close(laplace_density(x, laplace).float(), tent.log_prob(x.float()).exp())


def test_no_other_scale_or_place_is_likelier() -> None:
    w = _laplace(2001)
    best = fit_laplace(w)

    def likelihood(location: float, scale: float) -> float:
        return float((-(w - location).abs() / scale).mean()) - math.log(2 * scale)

    assert best.log_likelihood == pytest.approx(likelihood(best.location, best.scale))
    for location, scale in ((0.1, 1.0), (-0.1, 1.0), (0.0, 1.05), (0.0, 0.95)):
        assert likelihood(best.location + location, best.scale * scale) < best.log_likelihood


def test_each_distribution_is_recognised() -> None:
    laplace, normal = _laplace(5000), torch.randn(5000)

    assert fit_laplace(laplace).log_likelihood > fit_gauss(laplace).log_likelihood
    assert fit_laplace(normal).log_likelihood < fit_gauss(normal).log_likelihood


def test_equilibrium_of_the_papers_recipes() -> None:
    assert equilibrium_rms(0.1, eta=0.2, weight_decay=5e-4, momentum=0.9) == pytest.approx(6.32, abs=0.01)
    assert equilibrium_rms(0.1, eta=0.2, weight_decay=1e-4, momentum=0.9) == pytest.approx(14.1, abs=0.1)
    assert math.isinf(equilibrium_rms(0.1, eta=0.2, weight_decay=0.0, momentum=0.9))


def test_uncorrelated_steps_end_at_the_equilibrium() -> None:
    lr, eta, weight_decay, momentum = 0.1, 0.2, 1e-2, 0.9  # a time constant of 50 steps
    w = torch.randn(20_000)
    velocity = torch.zeros_like(w)

    for _ in range(500):
        velocity.mul_(momentum).add_(eta * torch.randn_like(w) + weight_decay * w)
        w -= lr * velocity

    expected = equilibrium_rms(lr, eta=eta, weight_decay=weight_decay, momentum=momentum)
    assert float(w.square().mean().sqrt()) == pytest.approx(expected, rel=0.03)
