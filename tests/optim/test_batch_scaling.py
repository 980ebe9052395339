import math

import pytest
import torch

from addertrain.optim import AdderSGD, equilibrium_rms, scaling_factor


def test_factors() -> None:
    assert [scaling_factor(rule, 4.0) for rule in ("none", "sqrt", "linear")] == [1.0, 2.0, 4.0]
    assert scaling_factor("linear", 0.25) == 0.25
    with pytest.raises(ValueError, match="expected a batch scale above 0, got 0"):
        scaling_factor("none", 0)
    with pytest.raises(ValueError, match="expected none, sqrt or linear, got 'cubic'"):
        scaling_factor("cubic", 2.0)  # type: ignore[arg-type]


def _settled_rms(*, lr: float, weight_decay: float) -> float:
    """RMS(w) of a layer whose gradients are noise, after eight time constants."""
    generator = torch.Generator().manual_seed(0)
    param = torch.nn.Parameter(torch.randn(20_000, generator=generator))
    group = {"params": [param], "adder": True, "layer_names": ["fc"], "layer_numel": [20_000]}
    optimizer = AdderSGD([group], lr=lr, weight_decay=weight_decay, momentum=0.9)
    for _ in range(round(8 * 0.1 / (2 * lr * weight_decay))):
        param.grad = torch.randn(20_000, generator=generator)
        optimizer.step()
    return param.detach().square().mean().sqrt().item()


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_decay_scaled_as_the_rate_keeps_the_weights_size(scale: float) -> None:
    lr, decay = (value * scaling_factor("sqrt", scale) for value in (0.05, 0.05))
    expected = equilibrium_rms(lr=0.05, eta=0.2, weight_decay=0.05, momentum=0.9)
    # Nesterov's form and steps of a finite length shift it by a few percent.
    assert _settled_rms(lr=lr, weight_decay=decay) == pytest.approx(expected, rel=0.1)


def test_the_rate_alone_lets_weights_grow_by_the_fourth_root() -> None:
    grown = _settled_rms(lr=0.05 * scaling_factor("sqrt", 16.0), weight_decay=0.02)
    assert grown / _settled_rms(lr=0.05, weight_decay=0.02) == pytest.approx(2.0, rel=0.1)


def test_equilibrium_of_the_papers_recipes() -> None:
    cifar10, imagenet = (
        equilibrium_rms(lr=0.1, eta=0.2, weight_decay=decay, momentum=0.9) for decay in (5e-4, 1e-4)
    )
    assert cifar10 == pytest.approx(6.32, abs=0.01)
    assert imagenet == pytest.approx(14.1, abs=0.1)


def test_uncorrelated_steps_end_at_the_equilibrium() -> None:
    lr, eta, weight_decay, momentum = 0.1, 0.2, 1e-2, 0.9  # a time constant of 50 steps
    w = torch.randn(20_000)
    velocity = torch.zeros_like(w)

    for _ in range(500):
        velocity.mul_(momentum).add_(eta * torch.randn_like(w) + weight_decay * w)
        w -= lr * velocity

    expected = equilibrium_rms(lr=lr, eta=eta, weight_decay=weight_decay, momentum=momentum)
    assert float(w.square().mean().sqrt()) == pytest.approx(expected, rel=0.03)


def test_without_decay_weights_grow_without_bound() -> None:
    assert math.isinf(equilibrium_rms(lr=0.1, eta=0.2, weight_decay=0.0, momentum=0.9))
