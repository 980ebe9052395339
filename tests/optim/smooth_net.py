"""A small smooth network, its batches and its training on one process: the control of the distributed tests.

No ReLU: where a rounding flips its kink, two exact runs part by 6e-3. No BatchNorm per rank: nothing but the
optimizer could tell ranks apart. Three filters of 135, 75 and 140 elements, which flat partitions cut.
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from addertrain.nn import AdderConv2d, AdderLinear, BatchNorm2d, param_groups, synchronise_norms
from addertrain.optim import AdaptiveLayerRate, AdderOptimizer, AdderSGD, Lion

Rule = Literal["sgd", "adamw", "lion"]
GLOBAL_BATCH = 12
NUM_STEPS = 20


def smooth_net(dtype: torch.dtype = torch.float64, *, batch_norm: bool = False) -> nn.Sequential:
    """`batch_norm`: in place of GroupNorm, synchronised where there are ranks."""

    def norm(width: int) -> nn.Module:
        return BatchNorm2d(width) if batch_norm else nn.GroupNorm(1, width)

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3), norm(3), nn.SiLU(),
        AdderConv2d(3, 5, 3, offset_free=True), norm(5), nn.SiLU(),
        AdderConv2d(5, 15, 1, offset_free=True), norm(15), nn.SiLU(), nn.AvgPool2d((1, 2)),
        nn.Flatten(), nn.Linear(30, 20), nn.SiLU(),
        AdderLinear(20, 7, offset_free=True), nn.LayerNorm(7), nn.SiLU(), nn.Linear(7, 4),
    )  # fmt: skip
    synchronise_norms(net)
    return net.double().to(dtype)


def global_batch(step: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    x = torch.randn(GLOBAL_BATCH, 2, 6, 6, dtype=torch.float64, generator=generator)
    return x.to(dtype), torch.randint(4, (GLOBAL_BATCH,), generator=generator)


def share(step: int, rank: int, world_size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A rank's part of the global batch."""
    x, label = global_batch(step, dtype)
    return x.chunk(world_size)[rank], label.chunk(world_size)[rank]


def loss_of(model: nn.Module, x: Tensor, label: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x).double(), label)


def new_optimizer(model: nn.Module, rule: Rule = "sgd") -> AdderOptimizer:
    groups = param_groups(model, weight_decay=1e-4, decay_norm_and_bias=False)
    if rule == "sgd":
        return AdderSGD(groups, lr=0.1)
    inner = partial(torch.optim.AdamW, lr=0.01) if rule == "adamw" else partial(Lion, lr=0.01)
    return AdaptiveLayerRate(groups, inner, eta=2.0)


def named_parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: param.detach().double() for name, param in model.named_parameters()}


def train_serially(dtype: torch.dtype, rule: Rule = "sgd", *, batch_norm: bool = False) -> dict[str, Tensor]:
    model = smooth_net(dtype, batch_norm=batch_norm)
    optimizer = new_optimizer(model, rule)
    for step in range(NUM_STEPS):
        optimizer.zero_grad()
        loss_of(model, *global_batch(step, dtype)).backward()
        optimizer.step()
    return named_parameters(model)


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """max |a - b| / max |b| over the tensors."""
    assert found.keys() == expected.keys()
    return max(
        ((found[name].double() - value).abs().max() / value.abs().max()).item()
        for name, value in expected.items()
    )
