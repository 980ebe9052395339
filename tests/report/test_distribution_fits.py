"""Fits of a report, against what they are said to be."""

import math

import pytest
import torch
from torch import Tensor

from addertrain.report.distribution_fits import fit_gauss, fit_laplace, gauss_density, laplace_density


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
