"""The l1 distance of bytes for evaluation in 8 bits, which is exact in integers.

Processors add up the differences of many bytes in one instruction (vpsadbw: 64).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from addertrain.ops import schemas
from addertrain.ops.flops import count_response
from addertrain.ops.geometry import Sizes, output_shape
from addertrain.ops.grouping import is_grouped
from addertrain.ops.registration import LIBRARY, NAMESPACE, SIZES, register_no_backward

MAX_TERMS = 32_768
"""K = C*R*S at most: sums of 255 K stay below 2^23, where float32 holds integers exactly."""

LIBRARY.define(f"adder2d_int8(Tensor x, Tensor weight, {SIZES}) -> Tensor")
LIBRARY.define(f"adder2d_int8_packed(Tensor x, Tensor weight, Tensor packed, {SIZES}) -> Tensor")
_ADDER2D_INT8 = torch.ops.addertrain.adder2d_int8
_PACKED = torch.ops.addertrain.adder2d_int8_packed.default


def adder2d_int8(x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes) -> Tensor:
    """sum_{c,r,s} |x - w| over patches, the negative of Eq. 2; a padded tap is x = 0.

    x_nchw and w_ocrs are uint8, the result is int32, channels-last.

    Raises:
        ValueError: other dtypes, or more than MAX_TERMS terms a sum.
    """
    check_bytes("adder2d_int8", x, weight)
    if x.is_cuda and is_grouped(x, weight):  # words of four channels would span groups
        return reference_distances(x, weight, stride, padding, dilation)
    if x.is_cuda:
        x, weight = in_words(x), in_words(weight)
    result: Tensor = _ADDER2D_INT8(x, weight, stride, padding, dilation)
    return result


def adder2d_int8_packed(
    x: Tensor, weight: Tensor, packed: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    """`adder2d_int8` of a layer without groups whose filters were packed before, by `pack_int8`."""
    check_bytes("adder2d_int8_packed", x, weight)
    result: Tensor = _PACKED(x, weight, packed, stride, padding, dilation)
    return result


def check_bytes(name: str, x: Tensor, weight: Tensor) -> None:
    """Checks the operands of operator NAME.

    Raises:
        ValueError: other dtypes than uint8, or more than MAX_TERMS terms a sum.
    """
    if x.dtype != torch.uint8 or weight.dtype != torch.uint8:
        raise ValueError(
            f"{name}: expected x and weight in uint8, got {x.dtype} and {weight.dtype}; quantise both to "
            "uint8."
        )
    if math.prod(weight.shape[1:]) > MAX_TERMS:
        raise ValueError(
            f"{name}: expected at most {MAX_TERMS} terms in a sum, got w_ocrs={tuple(weight.shape)}; "
            "evaluate this layer in float32."
        )


def in_words(bytes_: Tensor) -> Tensor:
    """Channels-last, padded with zero channels to a multiple of four, because GPUs read words. |0 - 0|
    adds nothing.
    """
    missing = -bytes_.shape[1] % 4
    padded = F.pad(bytes_, (0, 0, 0, 0, 0, missing)) if missing else bytes_
    return padded.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


@torch.library.impl(LIBRARY, "adder2d_int8", "CompositeExplicitAutograd")
def reference_distances(x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes) -> Tensor:
    """`adder2d_int8` by Eq. 2 in float32, which holds these integers exactly."""
    y: Tensor = schemas.ADDER2D(x.float(), weight.float(), stride, padding, dilation, False)
    return y.neg_().round_().to(torch.int32).contiguous(memory_format=torch.channels_last)


@torch.library.impl(LIBRARY, "adder2d_int8_packed", "CompositeExplicitAutograd")
def reference_packed_distances(
    x: Tensor, weight: Tensor, packed: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    """`adder2d_int8_packed` without kernels: `packed` has no part in it."""
    return adder2d_int8(x, weight, stride, padding, dilation)


@torch.library.register_fake(f"{NAMESPACE}::adder2d_int8", lib=LIBRARY)
def _fake(x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes) -> Tensor:
    shape = output_shape(x, weight, stride, padding, dilation)
    return torch.empty(shape, dtype=torch.int32, device=x.device, memory_format=torch.channels_last)


@torch.library.register_fake(f"{NAMESPACE}::adder2d_int8_packed", lib=LIBRARY)
def _fake_packed(
    x: Tensor, weight: Tensor, packed: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    return _fake(x, weight, stride, padding, dilation)


register_no_backward("adder2d_int8")
register_no_backward("adder2d_int8_packed")
count_response(_ADDER2D_INT8)
count_response(torch.ops.addertrain.adder2d_int8_packed)
