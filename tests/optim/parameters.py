"""Parameters with the groups AdderSGD expects, and gradients for them, without a network."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

SHAPES = {"conv1": (5, 3, 3, 3), "conv2": (4, 5, 1, 1), "fc": (7, 4)}


def parameters(dtype: torch.dtype = torch.float64) -> tuple[list[Parameter], list[Parameter]]:
    """Three adder filters and two other parameters, the same on every call."""
    generator = torch.Generator().manual_seed(1)
    filters = [Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES.values()]
    others = [Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in [(6, 2), (6,)]]
    return filters, others


def groups(filters: list[Parameter], others: list[Parameter]) -> list[dict[str, Any]]:
    names = list(SHAPES)[: len(filters)]
    numels = [param.numel() for param in filters]
    return [
        {"params": filters, "adder": True, "layer_names": names, "layer_numel": numels},
        {"params": others},
    ]


def set_gradients(params: list[Parameter], step: int) -> None:
    """Gradients that depend on the step and pull towards zero, of sizes from 1e-6 to 1."""
    generator = torch.Generator().manual_seed(1000 + step)
    for index, param in enumerate(params):
        noise = torch.randn(param.shape, generator=generator, dtype=torch.float64)
        param.grad = (10.0 ** -(2 * (index % 4)) * (noise + 0.1 * param.detach())).to(param.dtype)


def largest_difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """max |a - b| / max |b| over the tensors; NaN wherever a value is NaN."""
    pairs = zip(found, expected, strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
