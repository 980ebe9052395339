"""recalibrated and average_buffers: which statistics evaluation sees, and that training's own survive."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from addertrain.nn import AdderConv2d, BatchNorm2d, average_buffers, recalibrated
from tests.ranks import on_ranks

FLOAT64 = 1e-13
"""Means of a few hundred float64 numbers of size 1 in two orders."""


def _net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        AdderConv2d(1, 3, 3, offset_free=True), BatchNorm2d(3, relu=True), nn.Dropout(0.5),
        AdderConv2d(3, 4, 1, offset_free=True), BatchNorm2d(4), nn.Flatten(),
    ).double()  # fmt: skip


def _batches(count: int, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 1, 4, 4, dtype=torch.float64, generator=generator) for _ in range(count)]


def _statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def _stale(model: nn.Sequential) -> None:
    """Statistics of other filters than the model's, as in mid-training."""
    model.train()
    for batch in _batches(3, seed=7):
        model(batch)
    with torch.no_grad():
        model[0].weight += 1.0
        model[3].weight += 1.0
    model.eval()


def test_statistics_are_the_batches_own() -> None:
    model, batches = _net(), _batches(3)
    _stale(model)
    responses = [model[0](batch) for batch in batches]
    with recalibrated(model, batches):
        mean = torch.stack([y.mean((0, 2, 3)) for y in responses]).mean(0)
        var = torch.stack([y.var((0, 2, 3)) for y in responses]).mean(0)
        torch.testing.assert_close(model[1].running_mean, mean, rtol=FLOAT64, atol=FLOAT64)
        torch.testing.assert_close(model[1].running_var, var, rtol=FLOAT64, atol=FLOAT64)


def test_later_norms_see_what_they_see_in_training_but_no_dropout() -> None:
    model, (batch,) = _net(), _batches(1)
    _stale(model)
    with recalibrated(model, [batch]):
        by_batch = nn.functional.batch_norm(model[0](batch), None, None, training=True).relu()
        expected = model[3](by_batch).mean((0, 2, 3))
        torch.testing.assert_close(model[4].running_mean, expected, rtol=1e-10, atol=1e-10)


def test_response_is_normalised_again_where_stale_statistics_had_moved_it() -> None:
    model, batches = _net(), _batches(4)
    _stale(model)
    with torch.no_grad():
        stale = torch.cat([model(batch) for batch in batches])
        with recalibrated(model, batches):
            fresh = torch.cat([model(batch) for batch in batches])
    stale_mean, fresh_mean = (y.view(len(y), 4, -1).mean((0, 2)).abs().max() for y in (stale, fresh))
    assert stale_mean > 0.5
    assert fresh_mean < 0.1


@pytest.mark.parametrize("training", [True, False])
def test_live_state_is_put_back_bit_for_bit(training: bool) -> None:
    model = _net()
    _stale(model)
    model.train(training)
    model[2].eval()
    before, modes = _statistics(model), [module.training for module in model.modules()]
    buffers = dict(model.named_buffers())
    with recalibrated(model, _batches(2)):
        assert [module.training for module in model.modules()] == modes
        model.train()
        model(_batches(1)[0])  # what evaluation does to the buffers is undone too
        model.train(training)
        model[2].eval()
    assert all(torch.equal(value, before[name]) for name, value in _statistics(model).items())
    assert all(buffer is buffers[name] for name, buffer in model.named_buffers())
    assert [module.training for module in model.modules()] == modes
    assert [module.momentum for module in (model[1], model[4])] == [0.1, 0.1]
    assert all(param.grad is None for param in model.parameters())


def test_live_state_survives_an_error_inside_and_one_in_the_batches() -> None:
    model = _net()
    _stale(model)
    before = _statistics(model)
    with pytest.raises(KeyError), recalibrated(model, _batches(2)):
        raise KeyError
    unfit = torch.ones(2, 2, 4, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="C=2 input channels"), recalibrated(model, [*_batches(1), unfit]):
        pass
    assert all(torch.equal(value, before[name]) for name, value in _statistics(model).items())
    assert not model.training


def test_diverged_statistics_are_cured() -> None:
    model = _net().eval()
    model[1].running_mean.fill_(float("nan"))
    with recalibrated(model, _batches(2)):
        assert torch.isfinite(model(_batches(1)[0])).all()
    assert model[1].running_mean.isnan().all()


def test_no_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one batch"), recalibrated(_net(), []):
        pass


def test_model_without_running_statistics_is_left_alone() -> None:
    with recalibrated(nn.Linear(2, 2), []):
        pass


# -- several ranks --


def _recalibrated_on_rank() -> dict[str, Any]:
    rank, model = dist.get_rank(), _net()
    _stale(model)
    before = _statistics(model)
    share = _batches(3)[rank::2]  # two batches on rank 0, one on rank 1
    with recalibrated(model, share, group=dist.group.WORLD):
        pooled = _statistics(model)
    same = all(torch.equal(value, before[name]) for name, value in _statistics(model).items())
    return {"pooled": pooled, "is_restored": same}


@pytest.mark.distributed
def test_two_ranks_pool_what_one_rank_sees_in_all_batches() -> None:
    model = _net()
    _stale(model)
    with recalibrated(model, _batches(3)):
        serial = _statistics(model)
    for result in on_ranks(2, _recalibrated_on_rank):
        assert result["is_restored"]
        for name in ("1.running_mean", "1.running_var", "4.running_mean", "4.running_var"):
            torch.testing.assert_close(result["pooled"][name], serial[name], rtol=FLOAT64, atol=FLOAT64)


def _averaged_on_rank() -> dict[str, Any]:
    model = _net()
    model[1].running_mean.fill_(float(dist.get_rank()))
    model[1].running_var.fill_(2.0 + dist.get_rank())
    before = _statistics(model)
    with average_buffers(model, dist.group.WORLD):
        inside = _statistics(model)
    same = all(torch.equal(value, before[name]) for name, value in _statistics(model).items())
    return {"inside": inside, "is_restored": same}


@pytest.mark.distributed
def test_average_buffers_gives_every_rank_the_mean_and_takes_it_back() -> None:
    for result in on_ranks(2, _averaged_on_rank):
        assert result["is_restored"]
        assert result["inside"]["1.running_mean"].tolist() == [0.5] * 3
        assert result["inside"]["1.running_var"].tolist() == [2.5] * 3


def test_average_buffers_of_one_process_changes_nothing() -> None:
    model = _net()
    _stale(model)
    before = _statistics(model)
    with average_buffers(model, None):
        assert all(torch.equal(value, before[name]) for name, value in _statistics(model).items())
