"""AdderSGD under DDP: one, two and four ranks train the same network; alr="local" does not."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from addertrain.nn import AdderConv2d, AdderLinear, param_groups
from addertrain.optim import AdderSGD, AlrMode
from tests.optim.parameters import largest_difference
from tests.optim.tolerances import FLOAT64
from tests.ranks import on_ranks

GLOBAL_BATCH = 8
NUM_STEPS = 20


def _net() -> nn.Module:
    """Smooth and without BatchNorm, so that nothing but the optimizer could tell ranks apart."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.SiLU(),
        AdderConv2d(3, 5, 3, offset_free=True), nn.GroupNorm(1, 5), nn.SiLU(), nn.Flatten(),
        AdderLinear(20, 7, offset_free=True), nn.LayerNorm(7), nn.SiLU(), nn.Linear(7, 4),
    ).double()  # fmt: skip


def _batch(step: int) -> tuple[Tensor, Tensor]:
    """The global batch of a step."""
    generator = torch.Generator().manual_seed(100 + step)
    x = torch.randn(GLOBAL_BATCH, 2, 6, 6, dtype=torch.float64, generator=generator)
    return x, torch.randint(4, (GLOBAL_BATCH,), generator=generator)


def _backward(model: nn.Module, step: int, rank: int, world_size: int) -> None:
    x, label = (tensor.chunk(world_size)[rank] for tensor in _batch(step))
    nn.functional.cross_entropy(model(x), label).backward()


def _optimizer(model: nn.Module, alr: AlrMode) -> AdderSGD:
    return AdderSGD(param_groups(model, weight_decay=1e-4), lr=0.1, alr=alr)


def _train(alr: AlrMode) -> dict[str, Any]:
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    model = _net()
    optimizer = _optimizer(model, alr)
    wrapped = DistributedDataParallel(model) if dist.is_initialized() else model
    for step in range(NUM_STEPS):
        optimizer.zero_grad()
        _backward(wrapped, step, rank, world_size)
        optimizer.step()
    return {"params": [param.detach() for param in model.parameters()], "rates": optimizer.last_rates}


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_agree_with_one_process_over_20_steps(world_size: int) -> None:
    serial = _train("global")["params"]
    start = [param.detach() for param in _net().parameters()]
    assert largest_difference(serial, start) > 0.1
    results = on_ranks(world_size, _train, "global")
    for result in results:
        assert largest_difference(result["params"], serial) < FLOAT64
        # Ranks reduce in one order, so among themselves they agree bit for bit.
        assert torch.equal(result["rates"], results[0]["rates"])
        assert all(map(torch.equal, result["params"], results[0]["params"]))


def _accumulate() -> list[Tensor]:
    """Two micro-batches a step, the first without a reduction, as gradient accumulation does."""
    model = _net()
    optimizer = _optimizer(model, "global")
    wrapped = DistributedDataParallel(model)
    for step in range(NUM_STEPS):
        optimizer.zero_grad()
        shares = [tensor.chunk(4) for tensor in _batch(step)]
        for micro in (0, 1):
            x, label = (share[2 * dist.get_rank() + micro] for share in shares)
            wrapped.require_backward_grad_sync = micro == 1
            (nn.functional.cross_entropy(wrapped(x), label) / 2).backward()
        optimizer.step()
    return [param.detach() for param in model.parameters()]


@pytest.mark.distributed
def test_accumulation_agrees_with_one_large_batch() -> None:
    serial = _train("global")["params"]
    for params in on_ranks(2, _accumulate):
        assert largest_difference(params, serial) < FLOAT64


def _drift(num_batches: int) -> tuple[float, float]:
    """Length of the authors' step relative to the exact one, and their cosine: means over batches."""
    model = _net()
    optimizer = _optimizer(model, "local")
    wrapped = DistributedDataParallel(model)
    filters = optimizer.param_groups[0]["params"]

    def gradients() -> list[list[Tensor]]:
        found = []
        for step in range(num_batches):
            optimizer.zero_grad()
            _backward(wrapped, step, dist.get_rank(), dist.get_world_size())
            found.append([param.grad.clone() for param in filters])
        return found

    local = gradients()
    optimizer.remove_hooks()
    lengths, cosines = [], []
    for ours, raw in zip(local, gradients(), strict=True):
        exact = torch.cat([(0.2 * g.numel() ** 0.5 / g.norm() * g).flatten() for g in raw])
        authors = torch.cat([g.flatten() for g in ours])
        lengths.append(authors.norm() / exact.norm())
        cosines.append(nn.functional.cosine_similarity(authors, exact, dim=0))
    return torch.stack(lengths).mean().item(), torch.stack(cosines).mean().item()


@pytest.mark.distributed
def test_local_rates_make_the_step_depend_on_the_number_of_ranks() -> None:
    drifts = {world_size: on_ranks(world_size, _drift, 10)[0] for world_size in (1, 2, 4)}
    assert drifts[1] == pytest.approx((1.0, 1.0), rel=FLOAT64)
    # Measured: 0.71 and 0.94 on two ranks, 0.47 and 0.85 on four.
    assert drifts[2][0] < 0.85
    assert drifts[2][1] < 0.97
    assert drifts[4][0] < 0.65
    assert drifts[4][1] < 0.94


@pytest.mark.distributed
def test_local_equals_global_on_one_process_only() -> None:
    assert largest_difference(_train("local")["params"], _train("global")["params"]) < FLOAT64
    drifted = on_ranks(2, _train, "local")[0]["params"]
    assert largest_difference(drifted, _train("global")["params"]) > 0.01
