"""Shapes of an adder layer: turns arguments into pairs, checks them and computes the output size."""

from collections.abc import Sequence

import torch
from torch import Tensor

IntPair = int | Sequence[int]
FLOAT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def pair(value: IntPair, name: str) -> list[int]:
    """`value` as [vertical, horizontal]."""
    numbers = [value, value] if isinstance(value, int) else list(value)
    if len(numbers) != 2 or not all(isinstance(n, int) for n in numbers):
        raise ValueError(f"adder2d: expected {name} as an int or a pair of ints, got {value!r}.")
    return numbers


def output_size(size: int, filter_size: int, stride: int, padding: int, dilation: int) -> int:
    """Number of output positions along one axis; <= 0 where the filter does not fit."""
    return (size + 2 * padding - dilation * (filter_size - 1) - 1) // stride + 1


def output_shape(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """(N, O, P, Q) of the response to x_nchw and w_ocrs."""
    sizes = [
        output_size(x.shape[2 + axis], weight.shape[2 + axis], stride[axis], padding[axis], dilation[axis])
        for axis in (0, 1)
    ]
    return [x.shape[0], weight.shape[0], *sizes]


def check_arguments(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *,
    is_autocast: bool,
) -> None:
    """Refuses what no kernel can compute. Raises ValueError (shapes, numbers) or TypeError (dtypes).

    Under autocast the dtypes may differ: it makes them one.
    """
    if x.dim() != 4 or weight.dim() != 4:
        raise ValueError(
            f"adder2d: expected x_nchw and w_ocrs with 4 dimensions each, got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}; add the missing dimensions with unsqueeze."
        )
    if x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"adder2d: expected weight with C={x.shape[1]} input channels, got w_ocrs={tuple(weight.shape)}; "
            "grouped adder layers are not supported."
        )
    if x.dtype not in FLOAT_DTYPES:
        raise TypeError(f"adder2d: expected a floating-point x, got {x.dtype}; convert it with x.float().")
    if x.dtype != weight.dtype and not is_autocast:
        raise TypeError(f"adder2d: expected x and weight of one dtype, got {x.dtype} and {weight.dtype}.")
    if x.device != weight.device:
        raise ValueError(f"adder2d: expected x and weight on one device, got {x.device} and {weight.device}.")
    _check_numbers(x, weight, stride, padding, dilation)


def _check_numbers(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> None:
    if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0:
        raise ValueError(
            f"adder2d: expected stride >= 1, padding >= 0 and dilation >= 1, got stride={tuple(stride)}, "
            f"padding={tuple(padding)}, dilation={tuple(dilation)}."
        )
    if min(weight.shape[1:]) < 1:
        raise ValueError(f"adder2d: expected a filter with at least one element, got w_ocrs={tuple(weight.shape)}.")
    shape = output_shape(x, weight, stride, padding, dilation)
    if min(shape[2:]) < 1:
        raise ValueError(
            f"adder2d: expected an input that the filter fits into, got x_nchw={tuple(x.shape)}, "
            f"w_ocrs={tuple(weight.shape)}, padding={tuple(padding)}, dilation={tuple(dilation)}; increase the padding."
        )
