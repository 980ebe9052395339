"""Shapes of an adder layer: turns arguments into pairs, checks them and computes the output size."""

from collections.abc import Sequence

import torch
from torch import Tensor

IntPair = int | Sequence[int]
Sizes = Sequence[int]
"""Stride, padding or dilation, along H and along W."""
FLOAT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
MAX_FILTER_SIZE = 64
"""Rows and columns of a filter: kernels keep the set of taps that a position sees as bits of an integer."""


def pair(value: IntPair, name: str) -> list[int]:
    """`value` as [vertical, horizontal]."""
    numbers = [value, value] if isinstance(value, int) else value
    if not isinstance(numbers, list | tuple) or [isinstance(n, int) for n in numbers] != [True, True]:
        raise ValueError(f"adder2d: expected {name} as an int or a pair of ints, got {value!r}.")
    return list(numbers)


def output_size(size: int, filter_size: int, stride: int, padding: int, dilation: int) -> int:
    """Number of output positions along one axis; <= 0 if the filter does not fit."""
    return (size + 2 * padding - dilation * (filter_size - 1) - 1) // stride + 1


def output_shape(x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes) -> list[int]:
    """(N, O, P, Q) of the response to x_nchw and w_ocrs."""
    sizes = [
        output_size(x.shape[2 + axis], weight.shape[2 + axis], stride[axis], padding[axis], dilation[axis])
        for axis in (0, 1)
    ]
    return [x.shape[0], weight.shape[0], *sizes]


def check_arguments(
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    *,
    groups: int = 1,
    is_autocast: bool,
) -> None:
    """Refuses what no kernel can compute. Raises ValueError (shapes, numbers) or TypeError (dtypes).

    Under autocast the dtypes may differ: it makes them one.
    """
    _check_shapes(x, weight, groups)
    _check_kinds(x, weight, is_autocast=is_autocast)
    _check_numbers(stride, padding, dilation)
    if min(output_shape(x, weight, stride, padding, dilation)[2:]) < 1:
        raise ValueError(
            f"adder2d: expected an input at least as large as the filter, got x_nchw={tuple(x.shape)}, "
            f"w_ocrs={tuple(weight.shape)}, padding={tuple(padding)}, dilation={tuple(dilation)}; increase "
            "the padding or use a smaller filter."
        )


def _check_shapes(x: Tensor, weight: Tensor, groups: int) -> None:
    if x.dim() != 4 or weight.dim() != 4:
        raise ValueError(
            f"adder2d: expected x_nchw and w_ocrs with 4 dimensions each, got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}; add the missing dimensions with unsqueeze."
        )
    if not isinstance(groups, int) or groups < 1:
        raise ValueError(f"adder2d: expected groups as an int of at least 1, got {groups!r}.")
    if x.shape[1] != weight.shape[1] * groups:
        of = "" if groups == 1 else f" in {groups} groups"
        raise ValueError(
            f"adder2d: expected weight for C={x.shape[1]} input channels{of}, w_ocrs=(O, "
            f"{x.shape[1] / groups:g}, R, S), got w_ocrs={tuple(weight.shape)}; give the layer's groups."
        )
    if weight.shape[0] % groups != 0:
        raise ValueError(
            f"adder2d: expected a number of filters that {groups} groups divide, got "
            f"w_ocrs={tuple(weight.shape)}; change the number of filters or of groups."
        )
    if min(weight.shape) < 1 or min(x.shape[1:]) < 1:
        raise ValueError(
            "adder2d: expected images and filters of at least one element each (the batch may be empty), "
            f"got x_nchw={tuple(x.shape)} and w_ocrs={tuple(weight.shape)}; check the sizes of the previous "
            "layer."
        )
    if max(weight.shape[2:]) > MAX_FILTER_SIZE:
        raise ValueError(
            f"adder2d: expected filters of at most {MAX_FILTER_SIZE} rows and columns, got "
            f"w_ocrs={tuple(weight.shape)}; use smaller filters, or dilation."
        )


def _check_kinds(x: Tensor, weight: Tensor, *, is_autocast: bool) -> None:
    for name, tensor in (("x", x), ("weight", weight)):
        if tensor.dtype not in FLOAT_DTYPES:
            raise TypeError(
                f"adder2d: expected {name} in float64, float32, float16 or bfloat16, got {tensor.dtype}; "
                f"convert it with {name}.float()."
            )
        if tensor.layout != torch.strided:
            raise TypeError(
                f"adder2d: expected {name} as a dense tensor, got {tensor.layout}; convert it with "
                f"{name}.to_dense()."
            )
    if x.dtype != weight.dtype and not is_autocast:
        raise TypeError(
            f"adder2d: expected x and weight with the same dtype, got {x.dtype} and {weight.dtype}; convert "
            "one of them, or use torch.autocast."
        )
    if x.device != weight.device:
        raise ValueError(
            f"adder2d: expected x and weight on the same device, got {x.device} and {weight.device}; move "
            "one of them."
        )


def _check_numbers(stride: Sizes, padding: Sizes, dilation: Sizes) -> None:
    if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0:
        raise ValueError(
            f"adder2d: expected stride >= 1, padding >= 0 and dilation >= 1, got stride={tuple(stride)}, "
            f"padding={tuple(padding)}, dilation={tuple(dilation)}; correct the one that is out of range."
        )
