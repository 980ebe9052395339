"""The layout of a result: NCHW or channels-last, whichever its input has."""

from collections.abc import Sequence

import torch
from torch import Tensor


def memory_format(x: Tensor) -> torch.memory_format:
    """The layout a result takes from x_nchw: channels-last where strides ascend from channels to images.

    By strides alone, also where sizes of one would allow either name: a network on single-channel images
    keeps the layout that its loader chose. `format_of` in kernels/csrc/tensors.h is the same rule.
    """
    least = 1
    for axis in (1, 3, 2, 0):
        if axis == 0 and x.shape[axis] == 1:
            break  # the pitch of a single image is arbitrary
        if x.stride(axis) < least:
            return torch.contiguous_format
        least = x.stride(axis) * max(1, x.shape[axis])
    is_one_pixel = x.shape[1] * x.shape[2] * x.shape[3] == 1
    return torch.contiguous_format if is_one_pixel else torch.channels_last


def empty_like_input(shape: Sequence[int], x: Tensor) -> Tensor:
    """A tensor for a result of `shape` in the dtype, device and layout of `x`."""
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))
