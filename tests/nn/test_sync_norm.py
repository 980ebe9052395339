"""Norms over all ranks: two and three ranks normalise, differentiate and keep statistics as one process."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from addertrain.nn import AdderConv2d, BatchNorm2d, SyncBatchNorm2d, recalibrated, synchronise_norms
from tests.ranks import on_ranks

pytestmark = pytest.mark.distributed
FLOAT64 = 1e-12  # a few hundred roundings of 1.1e-16


def _inputs(dtype: torch.dtype, offset: float) -> tuple[Tensor, Tensor]:
    """Images of a global batch of 6 and gradients of the outputs."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(6, 5, 4, 3, generator=generator, dtype=torch.float64) + offset
    dy = torch.randn(6, 5, 4, 3, generator=generator, dtype=torch.float64)
    return x.to(dtype), dy.to(dtype)


def _norm(relu: bool) -> BatchNorm2d:
    torch.manual_seed(1)
    norm = BatchNorm2d(5, relu=relu).double()
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    nn.init.uniform_(norm.bias, -1.0, 1.0)
    return norm


def _results(norm: BatchNorm2d, x: Tensor, dy: Tensor) -> dict[str, Tensor]:
    x.requires_grad_()
    y = norm(x)
    y.backward(dy)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return {
        "y": y.detach(), "dx": x.grad, "dweight": norm.weight.grad, "dbias": norm.bias.grad,
        "mean": norm.running_mean, "var": norm.running_var, "count": norm.num_batches_tracked,
    }  # fmt: skip


def _on_rank(relu: bool, dtype: torch.dtype, offset: float, cuts: list[int]) -> dict[str, Tensor]:
    norm = _norm(relu).to(torch.promote_types(dtype, torch.float32))
    synchronise_norms(norm)
    assert type(norm) is SyncBatchNorm2d
    x, dy = (each.split(cuts)[dist.get_rank()].clone() for each in _inputs(dtype, offset))
    return _results(norm, x, dy)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("cuts", [[3, 3], [1, 3, 2]], ids=["2 ranks", "3 uneven ranks"])
def test_ranks_normalise_as_one_process(relu: bool, cuts: list[int]) -> None:
    expected = _results(_norm(relu), *_inputs(torch.float64, 1.0))
    ranks = on_ranks(len(cuts), _on_rank, relu, torch.float64, 1.0, cuts)
    for name in ("y", "dx"):
        torch.testing.assert_close(
            torch.cat([rank[name] for rank in ranks]), expected[name], rtol=0, atol=FLOAT64
        )
    for name in ("dweight", "dbias"):  # of the sum of the ranks' losses
        torch.testing.assert_close(sum(rank[name] for rank in ranks), expected[name], rtol=0, atol=FLOAT64)
    for name in ("mean", "var", "count"):
        torch.testing.assert_close(ranks[0][name], expected[name], rtol=0, atol=FLOAT64)
        assert all(torch.equal(rank[name], ranks[0][name]) for rank in ranks)


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    """|mean| / std = 3000: E[x^2] - E[x]^2 would keep no digit of the variance in fp32."""
    x, dy = _inputs(torch.float32, 3000.0)
    expected = _results(_norm(relu=True), x.double(), dy.double())
    ranks = on_ranks(2, _on_rank, True, torch.float32, 3000.0, [3, 3])
    found = torch.cat([rank["y"] for rank in ranks]).double()
    assert (found - expected["y"]).abs().max() < 2e-3  # the spacing of floats near 3000 is 2.4e-4


def test_16_bit_images_come_back_in_16_bits() -> None:
    ranks = on_ranks(2, _on_rank, True, torch.bfloat16, 0.0, [3, 3])
    x, dy = _inputs(torch.bfloat16, 0.0)
    expected = _results(_norm(relu=True), x.double(), dy.double())
    assert ranks[0]["y"].dtype == ranks[0]["dx"].dtype == torch.bfloat16
    assert (torch.cat([rank["y"] for rank in ranks]).double() - expected["y"]).abs().max() < 0.02


def _recalibrate_unevenly() -> Tensor:
    """The first rank passes two batches, the second one: nothing may wait for the other."""
    model = nn.Sequential(AdderConv2d(1, 5, 3, offset_free=True), _norm(relu=False)).double()
    synchronise_norms(model)
    batches = [torch.full((2, 1, 4, 4), float(index + 1), dtype=torch.float64) for index in range(3)]
    own = batches[dist.get_rank() :: 2]
    with recalibrated(model, own, group=dist.group.WORLD):
        mean = model[1].running_mean.clone()
    assert model[1].is_synchronised
    return mean


def test_recalibration_is_not_synchronised() -> None:
    first, second = on_ranks(2, _recalibrate_unevenly)
    assert torch.equal(first, second)


def test_one_process_keeps_its_own_norm() -> None:
    plain, synced = _norm(relu=True), _norm(relu=True)
    synchronise_norms(synced)
    x, dy = _inputs(torch.float64, 1.0)
    expected, found = _results(plain, x.clone(), dy), _results(synced, x.clone(), dy)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_other_batch_norms_are_refused() -> None:
    with pytest.raises(ValueError, match="expected BatchNorm2d layers only, got a BatchNorm1d at 1"):
        synchronise_norms(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
