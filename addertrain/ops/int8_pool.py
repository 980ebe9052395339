"""Maxima and sums over the pixels of bytes, as networks in 8 bits need them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from addertrain.ops.geometry import Sizes
from addertrain.ops.registration import LIBRARY, NAMESPACE, register_no_backward

LIBRARY.define("max_pool_int8(Tensor x, SymInt[2] size, SymInt[2] stride, SymInt[2] padding) -> Tensor")
LIBRARY.define("sum_pixels_int8(Tensor x) -> Tensor")
_MAX = torch.ops.addertrain.max_pool_int8.default
_SUM = torch.ops.addertrain.sum_pixels_int8.default


def max_pool_int8(x: Tensor, size: Sizes, stride: Sizes, padding: Sizes) -> Tensor:
    """The maximum of each window of x_nchw (uint8); pixels outside the image do not count. Channels-last."""
    y: Tensor = _MAX(x, size, stride, padding)
    return y


def sum_pixels_int8(x: Tensor) -> Tensor:
    """The sum over the pixels of each channel of x_nchw (uint8): int64 of shape (N, C)."""
    sums: Tensor = _SUM(x)
    return sums


@torch.library.impl(LIBRARY, "max_pool_int8", "CompositeExplicitAutograd")
def reference_maxima(x: Tensor, size: Sizes, stride: Sizes, padding: Sizes) -> Tensor:
    """`max_pool_int8` by torch in float32, which holds bytes exactly."""
    y = F.max_pool2d(x.float(), list(size), list(stride), list(padding))
    return y.to(torch.uint8).contiguous(memory_format=torch.channels_last)


@torch.library.impl(LIBRARY, "sum_pixels_int8", "CompositeExplicitAutograd")
def reference_sums(x: Tensor) -> Tensor:
    """`sum_pixels_int8` by torch."""
    return x.sum((2, 3), dtype=torch.int64)


@torch.library.register_fake(f"{NAMESPACE}::max_pool_int8", lib=LIBRARY)
def _fake_maxima(x: Tensor, size: Sizes, stride: Sizes, padding: Sizes) -> Tensor:
    lengths = zip(x.shape[2:], size, stride, padding, strict=True)
    shape = (*x.shape[:2], *((length + 2 * a - r) // u + 1 for length, r, u, a in lengths))
    return torch.empty(shape, dtype=torch.uint8, device=x.device, memory_format=torch.channels_last)


@torch.library.register_fake(f"{NAMESPACE}::sum_pixels_int8", lib=LIBRARY)
def _fake_sums(x: Tensor) -> Tensor:
    return torch.empty(x.shape[:2], dtype=torch.int64, device=x.device)


for _name in ("max_pool_int8", "sum_pixels_int8"):
    register_no_backward(_name)
