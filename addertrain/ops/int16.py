"""A convolution with operands of 16 bits, for the first and the last layer of a network in 8 bits.

Inputs have 13 bits, filters up to 16, and their products are added exactly in 32 bits. Results are therefore
the same on every processor, and far nearer to float32 than those of bytes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from addertrain.ops.geometry import Sizes, output_shape
from addertrain.ops.int8_norm import nearest_bytes
from addertrain.ops.registration import LIBRARY, NAMESPACE, register_no_backward

MOST_X = 4095
"""Inputs are integers within -MOST_X .. MOST_X."""
MOST_SUM = 2**31 - 1

LIBRARY.define("conv2d_int16_pack(Tensor weight) -> Tensor")
LIBRARY.define(
    "conv2d_int16(Tensor x, Tensor weight, Tensor packed, SymInt[2] stride, SymInt[2] padding, float factor, "
    "Tensor scale, Tensor shift, float? low) -> Tensor"
)
_PACK = torch.ops.addertrain.conv2d_int16_pack.default
_CONV = torch.ops.addertrain.conv2d_int16.default


def integer_filters(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Filters w_ocrs as int16 and the step of each in float64: weight = step * filter, nearly.

    A step is as fine as int16 allows and as sums of MOST_X times a filter's integers stay within 32 bits.
    """
    w = weight.detach().double().flatten(1)
    budget = MOST_SUM / MOST_X - w.shape[1] / 2  # each weight is rounded by half a step at most
    step = torch.maximum(w.abs().amax(1) / 32767, w.abs().sum(1) / budget)
    step[step == 0] = 1.0
    integers = (w / step[:, None]).round().to(torch.int16)
    return integers.view(weight.shape), step


def pack_int16(weight: Tensor) -> Tensor:
    """The filters w_ocrs (int16) in the order in which this processor's kernels read them.

    Raises:
        ValueError: for another dtype.
    """
    if weight.dtype != torch.int16:
        raise ValueError(
            f"pack_int16: expected weight in int16, got {weight.dtype}; convert it by integer_filters."
        )
    packed: Tensor = _PACK(weight)
    return packed


def conv2d_int16(
    x: Tensor,
    weight: Tensor,
    packed: Tensor,
    stride: Sizes,
    padding: Sizes,
    *,
    factor: float,
    scale: Tensor,
    shift: Tensor,
    low: int | None = None,
) -> Tensor:
    """sum_{c,r,s} n(x) w * scale + shift, with n(x) = round(x * factor) within -MOST_X .. MOST_X.

    A NaN in x counts as -MOST_X.

    Args:
        x: x_nchw in float32; a padded tap is 0.
        weight: w_ocrs in int16, from `integer_filters`; one group.
        packed: the same filters from `pack_int16`.
        scale, shift: float32, one number per filter.
        low: given, the result is rounded to bytes within low .. 255, a NaN to low; a ReLU is low = the byte
            of 0.

    Returns:
        float32 or uint8, channels-last. Every product and sum is rounded to float32, and ties go to the even
        integer, so the result has the same bits on every processor.

    Raises:
        ValueError: x has another dtype, number of dimensions or number of channels.
    """
    if x.dim() != 4 or x.dtype != torch.float32 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"conv2d_int16: expected x_nchw in float32 with C={weight.shape[1]}, got {tuple(x.shape)} in "
            f"{x.dtype}; convert it with x.float(), or correct its shape."
        )
    least = None if low is None else float(low)
    y: Tensor = _CONV(x, weight, packed, stride, padding, factor, scale, shift, least)
    return y


@torch.library.impl(LIBRARY, "conv2d_int16_pack", "CompositeExplicitAutograd")
def reference_packing(weight: Tensor) -> Tensor:
    """Only the compiled kernels of CPUs need an order of their own."""
    return weight.new_empty(0, dtype=torch.uint8)


@torch.library.impl(LIBRARY, "conv2d_int16", "CompositeExplicitAutograd")
def reference_convolution(
    x: Tensor,
    weight: Tensor,
    packed: Tensor,
    stride: Sizes,
    padding: Sizes,
    factor: float,
    scale: Tensor,
    shift: Tensor,
    low: float | None,
) -> Tensor:
    """`conv2d_int16`, one step after the other; float64 holds its sums exactly."""
    scaled = (x * torch.tensor(factor, device=x.device)).nan_to_num(nan=-MOST_X)
    integers = scaled.clamp(-MOST_X, MOST_X).round()
    sums = F.conv2d(integers.double(), weight.double(), stride=stride, padding=padding)
    y = sums.float() * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
    if low is not None:
        y = nearest_bytes(y, low)
    return y.contiguous(memory_format=torch.channels_last)


@torch.library.register_fake(f"{NAMESPACE}::conv2d_int16", lib=LIBRARY)
def _fake(
    x: Tensor, weight: Tensor, packed: Tensor, stride: Sizes, padding: Sizes, *rest: float | Tensor | None
) -> Tensor:
    dtype = torch.float32 if rest[-1] is None else torch.uint8
    shape = output_shape(x, weight, stride, padding, [1, 1])
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)


@torch.library.register_fake(f"{NAMESPACE}::conv2d_int16_pack", lib=LIBRARY)
def _fake_pack(weight: Tensor) -> Tensor:
    length = torch.library.get_ctx().new_dynamic_size()
    return torch.empty([length], dtype=torch.uint8, device=weight.device)


@register_flop_formula(torch.ops.addertrain.conv2d_int16)
def _count(x: list[int], weight: list[int], *_: object, out_shape: list[int], **__: object) -> int:
    return conv_flop_count(x, weight, out_shape)


for _name in ("conv2d_int16_pack", "conv2d_int16"):
    register_no_backward(_name)
