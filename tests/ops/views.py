"""Tensors of the same values whose elements lie elsewhere."""

from collections.abc import Callable

import torch
from torch import Tensor

Form = Callable[[Tensor], Tensor]


def _channels_last(t: Tensor) -> Tensor:
    return torch.empty_like(t, memory_format=torch.channels_last).copy_(t)


def _sliced(t: Tensor) -> Tensor:
    """The inside of a larger tensor; its surroundings would show."""
    larger = torch.full([size + 2 for size in t.shape], torch.nan, dtype=t.dtype, device=t.device)
    inside = larger[1:-1, 1:-1, 1:-1, 1:-1]
    return inside.copy_(t)


def _sliced_channels_last(t: Tensor) -> Tensor:
    n, c, h, w = t.shape
    larger = torch.full((n, h + 1, w + 2, c + 3), torch.nan, dtype=t.dtype, device=t.device)
    inside = larger.permute(0, 3, 1, 2)[:, 2 : 2 + c, 1:, 1 : 1 + w]
    return inside.copy_(t)


def _stepped(t: Tensor) -> Tensor:
    n, c, h, w = t.shape
    larger = torch.full((n, c, 2 * h, 3 * w), torch.nan, dtype=t.dtype, device=t.device)
    return larger[:, :, ::2, ::3].copy_(t)


def _transposed(t: Tensor) -> Tensor:
    return t.transpose(2, 3).contiguous().transpose(2, 3)


def _batch_last(t: Tensor) -> Tensor:
    return t.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)


FORMS: dict[str, Form] = {
    "NCHW": lambda t: t.contiguous(),
    "channels-last": _channels_last,
    "sliced": _sliced,
    "sliced channels-last": _sliced_channels_last,
    "stepped": _stepped,
    "transposed": _transposed,
    "batch last": _batch_last,
}
