"""Clipping by the global norm: everything but the adder filters, as torch clips it."""

import math

import pytest
import torch
from torch import Tensor, nn

from addertrain.nn import AdderConv2d, param_groups
from addertrain.optim import clip_others_
from addertrain.optim.clipping import clip_factor


def _model() -> nn.Sequential:
    model = nn.Sequential(AdderConv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return model


def _others(model: nn.Sequential) -> list[Tensor]:
    return [parameter for name, parameter in model.named_parameters() if name != "0.weight"]


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_all_but_the_filters_are_clipped_as_torch_clips_them(max_norm: float) -> None:
    model = _model()
    filters = model[0].weight.grad.clone()
    expected = [parameter.grad.clone() for parameter in _others(model)]
    twins = [nn.Parameter(torch.zeros_like(grad)) for grad in expected]
    for twin, grad in zip(twins, expected, strict=True):
        twin.grad = grad
    norm = nn.utils.clip_grad_norm_(twins, max_norm)

    got = clip_others_(param_groups(model, weight_decay=0.0), max_norm)

    assert got is not None
    torch.testing.assert_close(got, norm)
    for parameter, twin in zip(_others(model), twins, strict=True):
        torch.testing.assert_close(parameter.grad, twin.grad, rtol=1e-5, atol=1e-7)
    assert torch.equal(model[0].weight.grad, filters)


def test_a_norm_of_zero_and_one_that_is_not_finite() -> None:
    assert clip_factor(torch.tensor(0.0), 1.0) == 1.0
    assert clip_factor(torch.tensor(math.inf), 1.0) == 0.0
    assert clip_factor(torch.tensor(math.nan), 1.0).isnan()


def test_without_gradients_there_is_nothing_to_clip() -> None:
    model = nn.Sequential(AdderConv2d(1, 1, 1), nn.Linear(2, 2))

    assert clip_others_(param_groups(model, weight_decay=0.0), 1.0) is None
