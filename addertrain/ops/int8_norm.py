"""An adder layer and what follows it in 8 bits, in one pass: bytes in, distances, a norm, bytes out.

The compiled kernels read filters that are packed once (`pack_int8`). Other devices, and processors without
the library, compute the same bytes from the filters themselves.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from addertrain.ops.flops import count_response
from addertrain.ops.geometry import Sizes, output_shape
from addertrain.ops.int8 import check_bytes, reference_distances
from addertrain.ops.registration import LIBRARY, NAMESPACE, SIZES, register_no_backward

LIBRARY.define("adder2d_int8_pack(Tensor weight) -> Tensor")
LIBRARY.define(
    f"adder2d_int8_norm(Tensor x, Tensor weight, Tensor packed, {SIZES}, int outside, Tensor scale, "
    "Tensor shift, Tensor? residual, float residual_scale, float low) -> Tensor"
)
LIBRARY.define("quantise_int8(Tensor x, float factor, float zero) -> Tensor")
# One overload each: torch need not look for the one that fits.
_PACK = torch.ops.addertrain.adder2d_int8_pack.default
_NORM = torch.ops.addertrain.adder2d_int8_norm.default
_QUANTISE = torch.ops.addertrain.quantise_int8.default


def pack_int8(weight: Tensor) -> Tensor:
    """The filters w_ocrs (uint8) in the order in which this processor's kernels read them, for
    `adder2d_int8_norm`; they are packed for the instruction set in use.

    Raises:
        ValueError: for another dtype.
    """
    if weight.dtype != torch.uint8:
        raise ValueError(f"pack_int8: expected weight in uint8, got {weight.dtype}; quantise it to uint8.")
    packed: Tensor = _PACK(weight)
    return packed


def adder2d_int8_norm(
    x: Tensor,
    weight: Tensor,
    packed: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    *,
    scale: Tensor,
    shift: Tensor,
    outside: int = 0,
    residual: Tensor | None = None,
    residual_scale: float = 0.0,
    low: int = 0,
) -> Tensor:
    """round(D * scale + shift + residual * residual_scale) within low .. 255, with D = sum_{c,r,s} |x - w|.

    Args:
        x, weight: x_nchw and w_ocrs in uint8; one group.
        packed: the same filters from `pack_int8`.
        scale, shift: float32, one number per filter.
        outside: the byte of pixels outside the image.
        residual: uint8, of the result's shape.
        low: the least byte; a ReLU is low = the byte of 0.

    Returns:
        uint8, channels-last. Every product and sum is rounded to float32, ties go to the even byte, and a NaN
        gives `low`, so the result has the same bytes on every processor.

    Raises:
        ValueError: other dtypes, or more than MAX_TERMS terms a sum.
    """
    check_bytes("adder2d_int8_norm", x, weight)
    sizes = (stride, padding, dilation)
    y: Tensor = _NORM(x, weight, packed, *sizes, outside, scale, shift, residual, residual_scale, float(low))
    return y


def quantise_int8(x: Tensor, factor: float, zero: float = 0.0) -> Tensor:
    """round(x * factor + zero) within 0 .. 255 as uint8, channels-last, 0 for a NaN; x_nchw is float32."""
    bytes_: Tensor = _QUANTISE(x, factor, zero)
    return bytes_


@torch.library.impl(LIBRARY, "adder2d_int8_pack", "CompositeExplicitAutograd")
def reference_packing(weight: Tensor) -> Tensor:
    """Only the compiled kernels of CPUs need an order of their own."""
    return weight.new_empty(0)


@torch.library.impl(LIBRARY, "adder2d_int8_norm", "CompositeExplicitAutograd")
def reference_norm(
    x: Tensor,
    weight: Tensor,
    packed: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    outside: int,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    residual_scale: float,
    low: float,
) -> Tensor:
    """`adder2d_int8_norm`, one step after the other."""
    (a, b), no_padding = padding, [0, 0]
    surrounded = F.pad(x, (b, b, a, a), value=outside)
    y = reference_distances(surrounded, weight, stride, no_padding, dilation).float()
    y = y * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
    if residual is not None:
        y = y + residual.float() * torch.tensor(residual_scale, device=x.device)
    return nearest_bytes(y, low)


@torch.library.impl(LIBRARY, "quantise_int8", "CompositeExplicitAutograd")
def reference_quantisation(x: Tensor, factor: float, zero: float) -> Tensor:
    """`quantise_int8`, one step after the other."""
    factor_in_float32, zero_in_float32 = torch.tensor((factor, zero), device=x.device)
    return nearest_bytes(x * factor_in_float32 + zero_in_float32, 0.0)


def nearest_bytes(y: Tensor, low: float) -> Tensor:
    """y rounded to bytes within low .. 255, ties to the even one and a NaN to `low`, channels-last."""
    return (
        y.nan_to_num(nan=low)
        .clamp(low, 255.0)
        .round()
        .to(torch.uint8)
        .contiguous(memory_format=torch.channels_last)
    )


@torch.library.register_fake(f"{NAMESPACE}::adder2d_int8_norm", lib=LIBRARY)
def _fake_norm(
    x: Tensor, weight: Tensor, packed: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, *_: object
) -> Tensor:
    shape = output_shape(x, weight, stride, padding, dilation)
    return torch.empty(shape, dtype=torch.uint8, device=x.device, memory_format=torch.channels_last)


@torch.library.register_fake(f"{NAMESPACE}::quantise_int8", lib=LIBRARY)
def _fake_quantise(x: Tensor, factor: float, zero: float) -> Tensor:
    return torch.empty(x.shape, dtype=torch.uint8, device=x.device, memory_format=torch.channels_last)


@torch.library.register_fake(f"{NAMESPACE}::adder2d_int8_pack", lib=LIBRARY)
def _fake_pack(weight: Tensor) -> Tensor:
    length = torch.library.get_ctx().new_dynamic_size()
    return torch.empty([length], dtype=torch.uint8, device=weight.device)


for _name in ("adder2d_int8_pack", "adder2d_int8_norm", "quantise_int8"):
    register_no_backward(_name)
count_response(torch.ops.addertrain.adder2d_int8_norm)
