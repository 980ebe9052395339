"""What the adaptive rate costs: arithmetic beside torch's SGD, its collective within a ZeRO-2 step.

Ratios within one process, so they hold on a machine that others use. pytest -m long tests/optim/test_cost.py
"""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist

from addertrain.models import build_model
from addertrain.nn import param_groups
from addertrain.optim import AdderSGD, bind, gradient_norms, shards
from addertrain.train.strategies.zero import engine_settings, import_deepspeed
from tests.optional import needs_deepspeed
from tests.ranks import on_ranks

pytestmark = pytest.mark.long


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _resnet50() -> torch.nn.Module:
    model = build_model("resnet50", kind="adder", num_classes=1000)
    for param in model.parameters():
        param.grad = torch.randn_like(param)
    return model


def test_a_step_of_resnet50_costs_little_more_than_sgd() -> None:
    adder_sgd = AdderSGD(param_groups(_resnet50(), weight_decay=1e-4), lr=0.1)
    settings: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
    sgd = torch.optim.SGD(_resnet50().parameters(), foreach=True, **settings)
    pairs = [(_seconds(adder_sgd.step), _seconds(sgd.step)) for _ in range(20)]
    ratio = statistics.median(ours / theirs for ours, theirs in pairs[3:])
    print(f"AdderSGD / SGD(foreach): {ratio:.3f}; {min(ours for ours, _ in pairs) * 1e3:.0f} ms")
    assert ratio <= 1.15


def _share_of_collective(num_steps: int) -> float:
    """Median over steps of the time in AdderSGD's all-reduce over that of the whole ZeRO-2 step."""
    deepspeed = import_deepspeed("cpu")
    os.environ["LOCAL_RANK"] = str(dist.get_rank())
    torch.manual_seed(0)
    model = build_model("resnet20", kind="adder", num_classes=10)
    optimizer = AdderSGD(param_groups(model, weight_decay=1e-4), lr=0.1)
    settings = engine_settings(2, device_type="cpu", accumulates=False, scales=False)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=settings, dist_init_required=False
    )
    bind(engine)
    x, label = torch.randn(32, 3, 32, 32), torch.randint(10, (32,))
    inside = [0.0]
    plain = shards.summed

    def timed(values: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        start = time.perf_counter()
        result = plain(values, group)
        inside[0] += time.perf_counter() - start
        return result

    gradient_norms.summed = timed
    shares = []
    for _ in range(num_steps):
        inside[0] = 0.0
        start = time.perf_counter()
        engine.backward(torch.nn.functional.cross_entropy(engine(x), label))
        # Waiting for the other rank is no cost of the collective: without it the next one would wait.
        dist.barrier()
        engine.step()
        shares.append(inside[0] / (time.perf_counter() - start))
    return statistics.median(shares[2:])


@needs_deepspeed
def test_the_norms_collective_is_a_small_part_of_a_zero_2_step() -> None:
    shares = on_ranks(2, _share_of_collective, 14, timeout_s=170)
    print(f"norms' all-reduce in a ZeRO-2 step of ResNet-20, 32 images a rank: {max(shares):.2%}")
    assert max(shares) <= 0.02
