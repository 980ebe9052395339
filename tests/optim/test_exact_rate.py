"""RMS(step) = eta: the promise of Eq. 13, for layers of every size, whole and cut over ranks."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from addertrain.optim import AdderSGD
from addertrain.optim.gradient_norms import sq_norms
from addertrain.optim.scaling import local_rate
from tests.optim.tolerances import FLOAT64_SUM, RATE

ETA = 0.2
SIZES = [
    (64, 64, 3, 3),
    (512, 512, 3, 3),
    pytest.param((1024, 1024, 3, 3), marks=pytest.mark.long),
    pytest.param((25088, 4096), marks=pytest.mark.long),  # VGG's first linear layer: 411 MB
]
of_every_size = pytest.mark.parametrize("shape", SIZES, ids=str)


def _gradient(shape: Sequence[int]) -> Tensor:
    """A late layer's: small, and of rows of many sizes."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(shape[0], generator=generator).exp() * 1e-5
    return torch.randn(shape, generator=generator).mul_(rows.view(-1, *(1 for _ in shape[1:])))


def _rms(values: Tensor) -> float:
    """In float64, by pieces."""
    pieces = values.reshape(-1).split(1 << 20)
    return math.sqrt(math.fsum(piece.double().square().sum().item() for piece in pieces) / values.numel())


def _step(grad: Tensor) -> Tensor:
    """What one step adds to a filter of zeros."""
    param = Parameter(torch.zeros_like(grad))
    group = {"params": [param], "adder": True, "layer_names": ["one"], "layer_numel": [grad.numel()]}
    optimizer = AdderSGD([group], lr=1.0, momentum=0.0, nesterov=False, eta=ETA)
    param.grad = grad
    optimizer.step()
    return param.detach()


@of_every_size
def test_the_rms_of_a_step_is_eta(shape: tuple[int, ...]) -> None:
    assert _rms(_step(_gradient(shape))) / ETA == pytest.approx(1.0, abs=RATE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_16_bits_as_well_as_they_store_a_step(dtype: torch.dtype) -> None:
    grad = (_gradient((64, 64, 3, 3)) * 1e4).to(dtype)
    assert _rms(_step(grad)) / ETA == pytest.approx(1.0, abs=torch.finfo(dtype).eps / 2)


@of_every_size
@pytest.mark.parametrize("num_parts", [2, 8, 64])
def test_the_rate_of_a_layer_cut_in_uneven_parts_is_that_of_the_whole(
    shape: tuple[int, ...], num_parts: int
) -> None:
    flat = _gradient(shape).flatten()
    generator = torch.Generator().manual_seed(num_parts)
    cuts = torch.randint(flat.numel(), (num_parts - 1,), generator=generator).sort().values
    of_ranks = [sq_norms([part]) for part in flat.tensor_split(cuts)]
    whole, cut = (local_rate(total, flat.numel(), ETA).item() for total in (sq_norms([flat]), sum(of_ranks)))
    assert cut == pytest.approx(whole, rel=FLOAT64_SUM)
    assert cut * _rms(flat) == pytest.approx(ETA, rel=RATE)


@pytest.mark.parametrize("size", [1e-44, 1e-38, 1e-25, 1e25, 1e38])
def test_a_step_stays_finite_behind_gradients_of_any_size(size: float) -> None:
    """Below 6e-40 alpha itself passes float32: the step is shorter then, and no NaN."""
    rms = _rms(_step(torch.full((16, 16), size)))
    assert rms == pytest.approx(ETA, rel=RATE) if size > 6e-40 else 0 < rms < ETA
