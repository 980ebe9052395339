"""AdderSGD where others shard the training: every sharding trains as one process does.

In float64 the difference is that of the sums' order, below 1e-12. In fp32 it stays within twice what fp32
costs one process.
"""

import math

import pytest
import torch

from tests.optim.fsdp_training import (
    collectives_of_a_step,
    load_and_train,
    train_and_save,
    train_ddp,
    train_fsdp,
)
from tests.optim.smooth_net import distance, named_parameters, smooth_net, train_serially
from tests.optim.tolerances import FLOAT64
from tests.ranks import on_ranks

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def exact() -> dict[str, torch.Tensor]:
    """One process in float64."""
    trained = train_serially(torch.float64)
    assert distance(trained, named_parameters(smooth_net())) > 0.1
    return trained


@pytest.mark.parametrize("mesh", [(2,), (4,), (2, 2)], ids=["fsdp-2", "fsdp-4", "hsdp-2x2"])
def test_fsdp_trains_as_one_process_in_float64(mesh: tuple[int, ...], exact: dict[str, torch.Tensor]) -> None:
    for found in on_ranks(math.prod(mesh), train_fsdp, torch.float64, mesh):
        assert distance(found, exact) < FLOAT64


def test_ddp_in_fp32_stays_within_what_fp32_costs_one_process(exact: dict[str, torch.Tensor]) -> None:
    own = distance(train_serially(torch.float32), exact)
    for found in [
        *on_ranks(2, train_ddp, torch.float32, False),
        *on_ranks(2, train_fsdp, torch.float32, (2,)),
    ]:
        assert distance(found, exact) <= 2 * own


def test_synchronised_norms_make_ranks_one_process() -> None:
    """With BatchNorm per rank the difference is 0.1 and more."""
    exact = train_serially(torch.float64, batch_norm=True)
    for found in on_ranks(2, train_ddp, torch.float64, True):
        assert distance(found, exact) < FLOAT64
    for found in on_ranks(2, train_fsdp, torch.float64, (2,), True):
        assert distance(found, exact) < FLOAT64


def test_fsdp_goes_on_on_another_number_of_ranks(exact: dict[str, torch.Tensor]) -> None:
    saved, *others = on_ranks(2, train_and_save, 7)
    assert all(values["momentum_buffer"].numel() == 0 for values in others[0]["state"]["state"].values())
    for found in on_ranks(4, load_and_train, saved, 7):
        assert distance(found, exact) < FLOAT64


def test_one_collective_a_step() -> None:
    assert on_ranks(2, collectives_of_a_step) == [1, 1]
