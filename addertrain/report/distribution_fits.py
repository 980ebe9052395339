"""Maximum-likelihood fits of the two distributions that the paper's Figure 4 compares.

With m samples w, in nats a sample:

    Gauss     μ = mean w, σ² = mean (w − μ)²        log L / m = −½ log(2πσ²) − ½
    Laplace   μ = median w, b = mean |w − μ|        log L / m = −log(2b) − 1
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fit:
    """Location and scale (σ or b), and the log-likelihood of a sample on average, in nats."""

    location: float
    scale: float
    log_likelihood: float


def fit_gauss(samples: Tensor) -> Fit:
    """The normal distribution of the highest likelihood."""
    w = samples.double().flatten()
    scale = float(w.std(correction=0))
    return Fit(float(w.mean()), scale, -0.5 * math.log(2 * math.pi * scale**2) - 0.5)


def fit_laplace(samples: Tensor) -> Fit:
    """The Laplace distribution of the highest likelihood."""
    w = samples.double().flatten()
    location = float(w.median())
    scale = float((w - location).abs().mean())
    return Fit(location, scale, -math.log(2 * scale) - 1.0)


def gauss_density(w: Tensor, fit: Fit) -> Tensor:
    """exp(−(w − μ)² / 2σ²) / (σ √2π)."""
    return torch.exp(-0.5 * ((w - fit.location) / fit.scale) ** 2) / (fit.scale * math.sqrt(2 * math.pi))


def laplace_density(w: Tensor, fit: Fit) -> Tensor:
    """exp(−|w − μ| / b) / 2b."""
    return torch.exp(-(w - fit.location).abs() / fit.scale) / (2 * fit.scale)
