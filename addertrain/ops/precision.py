"""The data type of a sum: the one of autocast, and the one that CPUs need for correct results."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from addertrain.ops.geometry import Sizes

_HAS_BFLOAT16_PRODUCTS = (
    torch.cpu._is_avx512_bf16_supported() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
)
"""Whether this processor multiplies bfloat16 and adds up in float32, and oneDNN is not limited to less."""


def is_autocast(device_type: str) -> bool:
    """Whether autocast is on; not every device type knows it: meta does not."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """A block in which torch's operators compute in the data type of their operands, as gradients have to:
    the forward pass chose that type, and `backward` may be called within autocast.
    """
    return torch.autocast(device_type, enabled=False) if is_autocast(device_type) else nullcontext()


def dtype_of_autocast(*operands: Tensor) -> torch.dtype | None:
    """The data type to which autocast converts the operands of a product; None if it does not convert
    them, because it is off or one of them is float64.
    """
    device_type = operands[0].device.type
    if not is_autocast(device_type) or any(operand.dtype == torch.float64 for operand in operands):
        return None
    return torch.get_autocast_dtype(device_type)


def wide(tensor: Tensor) -> Tensor:
    """In float32 at least."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def needs_float32(x: Tensor) -> bool:
    """Whether adder layers, norms and linear layers have to compute x in float32: 16 bits on a CPU.

    Convolutions ask `needs_float32_products`.
    """
    return x.device.type == "cpu" and x.dtype in (torch.float16, torch.bfloat16)


def needs_float32_products(x: Tensor, stride: Sizes) -> bool:
    """Whether a convolution of x and its gradients have to be computed in float32.

    torch 2.14.1 adds float16 up in float16 on a CPU, and bfloat16 in bfloat16 without oneDNN or on a
    processor without AVX-512, which puts a filter gradient off by 5 %; oneDNN's bfloat16 filter gradients
    with a stride are unreliable with AVX-512 as well. Without a stride, a processor with instructions for
    bfloat16 adds its products up in float32, twice as fast as those of float32.
    """
    is_exact = x.dtype == torch.bfloat16 and max(stride) == 1 and _HAS_BFLOAT16_PRODUCTS
    return needs_float32(x) and not (is_exact and torch.backends.mkldnn.enabled)
