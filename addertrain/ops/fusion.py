"""Decides which operators compute a layer, the norm after it, a residual's sum and a ReLU.

| path | what runs | where |
|---|---|---|
| plain | layer, norm, sum and ReLU separately; norm and ReLU in one pass where `norm_pays` | everywhere |
| centred | as plain; the filter gradient leaves out the sum of dY, 0 behind a training norm | rectified |
| with_sums | the response comes with the norm's sums (`ops.fused`) | GPUs, training |
| affine | response, norm, residual and ReLU in one pass (`ops.fused`) | GPUs, evaluation |
| residual | norm, sum and ReLU in one pass (`ops.norm_residual`) | CPUs, training |

It looks at tensors and at what the caller says of its modules; `addertrain.nn.adder_norm` asks it after
checking that no hooks wait for the modules' own calls.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from addertrain import libraries
from addertrain.ops import schemas
from addertrain.ops.geometry import Sizes
from addertrain.ops.grouping import is_grouped
from addertrain.ops.layout import memory_format
from addertrain.ops.precision import is_autocast

Path = Literal["plain", "centred", "with_sums", "affine", "residual"]

_TYPES = (torch.float32, torch.float16, torch.bfloat16)
_MAX_TAPS, _MAX_STRIDE = 16, 8  # along an axis, of kernels/device/geometry.h


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The settings of a plain adder layer and of the batch norm after it, which alone reads its response.

    Args:
        has_statistics: what the norm's mode needs: a momentum in training, running statistics in evaluation.
        norm_dtype: of the norm's weight.
    """

    weight: Tensor
    stride: Sizes
    offset_free: bool
    rectified: bool
    trains: bool
    has_statistics: bool
    norm_dtype: torch.dtype


def response_path(pair: Pair, x: Tensor) -> Path:
    """How the layer and its norm are computed; what the norm's end becomes is `end_path`'s."""
    # The operators read a channel's numbers in float32, their references in float64 where x is.
    is_read = pair.norm_dtype == torch.promote_types(x.dtype, torch.float32)
    if pair.offset_free and pair.has_statistics and is_read and tiles_serve(x, pair.weight, pair.stride):
        if pair.trains:
            return "with_sums"
        if not torch.is_grad_enabled():
            return "affine"
    return "centred" if pair.trains and pair.rectified else "plain"


def end_path(y: Tensor, residual: Tensor) -> Path:
    """How relu(norm(y) + residual) of a norm that trains is computed: "residual" or "plain"."""
    if norm_pays(y) and norm_pays(residual) and y.shape == residual.shape:
        return "residual"
    return "plain"


def tiles_serve(x: Tensor, weight: Tensor, stride: Sizes) -> bool:
    """Whether the operators of `ops.fused` are faster than a separate response and norm: on GPUs,
    channels-last.

    docs/cuda.md has the cost model.
    """
    return (
        x.device.type == "cuda"
        and not is_grouped(x, weight)
        and libraries.is_loaded("_C_cuda")
        and response_dtype(x, weight, stride) in _TYPES
        and max(weight.shape[2:]) <= _MAX_TAPS
        and max(stride) <= _MAX_STRIDE
        and memory_format(x) == torch.channels_last
    )


def affine_reads(residual: Tensor, x: Tensor, weight: Tensor, stride: Sizes) -> bool:
    """Whether the affine operator can add the residual to its result, which it writes channels-last."""
    return residual.dtype == response_dtype(x, weight, stride) and residual.is_contiguous(
        memory_format=torch.channels_last
    )


def response_dtype(x: Tensor, weight: Tensor, stride: Sizes) -> torch.dtype:
    """What the offset-free response is stored in, with autocast or without."""
    if is_autocast(x.device.type):
        return schemas.autocast_dtype(x.device.type, x, weight, stride, (), (), True)
    return x.dtype


def norm_pays(x: Tensor) -> bool:
    """Whether `ops.norm` beats torch's norm followed by a ReLU on x: float32, channels-last, on a CPU."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.dim() == 4
        and x.numel() > 0
        and x.is_contiguous(memory_format=torch.channels_last)
    )
