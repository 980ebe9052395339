"""Filter gradients of convolutions and adder layers, by the fastest correct way.

    dW[o,c,r,s] = sum_{n,p,q} dY[n,o,p,q] X[n, c, p*u + r*e - a, q*u + s*e - a]
    dF = sum_n dY * (X - F) = dW - F * sum_{n,p,q} dY                                  (Eq. 5, opened)

with stride u, dilation e and zero padding a. cuDNN and oneDNN do the first at full speed, and torch calls
them. Two kinds of layers are not given to oneDNN: pointwise layers with a stride, and filters as large as
their input. Both are matrix products, one for each group. On CPUs 16 bits are widened first, so that sums are
in float32 on every processor. An adder layer's second term vanishes behind a training-mode batch norm, and
only there: its gradient is centred.
"""

import torch
from torch import Tensor

from addertrain.ops.geometry import Sizes
from addertrain.ops.grouping import grad_weight_by_group, groups_of
from addertrain.ops.precision import needs_float32
from addertrain.ops.registration import LIBRARY, NAMESPACE, SIZES, register_no_backward

_SMALL_GROUP = 8  # of kernels/csrc/cpu/choices.h

LIBRARY.define(f"grouped_grad_weight(Tensor dy, Tensor x, Tensor weight, {SIZES}) -> Tensor")


def conv2d_grad_weight(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    """dy_nopq, x_nchw, w_ocrs -> dw_ocrs, in any layout; float32 for 16 bits on a CPU, else the dtype of x.

    `weight` gives the shape, and the library its layout; its values have no part in it.
    """
    if needs_float32(x):
        dy, x, weight = dy.float(), x.float(), weight.float()
    if _share_registers(x, weight):
        small: Tensor = torch.ops.addertrain.grouped_grad_weight(dy, x, weight, stride, padding, dilation)
        return small
    if is_strided_pointwise(x, weight, stride):
        return _of_seen_pixels(dy, x, weight, stride, padding)
    if tuple(x.shape[2:]) == tuple(weight.shape[2:]) and max(padding) == 0:
        return _of_whole_inputs(dy, x, weight)
    return of_the_library(dy, x, weight, stride, padding, dilation)


def of_the_library(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    """dW by torch's convolution, in any number of groups."""
    dw: Tensor = torch.ops.aten.convolution_backward(
        dy, x, weight, None, stride, padding, dilation, False, [0, 0], groups_of(x, weight),
        [False, True, False],
    )[1]  # fmt: skip
    return dw


# On CPUs a kernel of our own has it, with one order of sums for any number of threads.
LIBRARY.impl("grouped_grad_weight", of_the_library, "CompositeExplicitAutograd")


@torch.library.register_fake(f"{NAMESPACE}::grouped_grad_weight", lib=LIBRARY)
def _fake(dy: Tensor, x: Tensor, weight: Tensor, *_: object) -> Tensor:
    return torch.empty_like(weight)


register_no_backward("grouped_grad_weight")


def _share_registers(x: Tensor, weight: Tensor) -> bool:
    """Whether the layer has many small groups, on a CPU in float32 (kernels/csrc/cpu/grouped)."""
    groups = groups_of(x, weight)
    largest = max(weight.shape[1], weight.shape[0] // groups)
    return groups > 1 and largest <= _SMALL_GROUP and x.device.type == "cpu" and x.dtype == torch.float32


def adder2d_grad_weight(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    centred: bool = False,
) -> Tensor:
    """Eq. 5. dy_nopq, x_nchw, w_ocrs -> dw_ocrs in the layout of `weight`; any device with a convolution.

    `centred` promises that dY sums to 0 in every channel.
    """
    if dy.numel() == 0:
        return torch.zeros_like(weight)
    return of_products(
        conv2d_grad_weight(dy, x, weight, stride, padding, dilation), dy, weight, centred=centred
    )


def of_products(dw: Tensor, dy: Tensor, weight: Tensor, *, centred: bool) -> Tensor:
    """Eq. 5 of dW = sum dY X, in the dtype and layout of `weight`."""
    if centred:
        return torch.empty_like(weight).copy_(dw)
    accumulator = torch.float64 if dy.dtype == torch.float64 else torch.float32
    dy_sum_o = dy.sum((0, 2, 3), dtype=accumulator)
    # In 16 bits the product stays in float32: the two terms cancel wherever the mean of dY is not 0.
    return torch.sub(dw, weight * dy_sum_o.view(-1, 1, 1, 1), out=torch.empty_like(weight))


def is_strided_pointwise(x: Tensor, weight: Tensor, stride: Sizes) -> bool:
    """Whether the filter is 1x1 with a stride, on a CPU: not given to the library, of whatever width."""
    return x.device.type == "cpu" and tuple(weight.shape[2:]) == (1, 1) and max(stride) > 1


@grad_weight_by_group
def _of_seen_pixels(dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes) -> Tensor:
    """[O, M] x [M, C] over the M outputs of a 1x1 filter that see a pixel; those that see padding add 0."""
    (rows, p), (columns, q) = (
        _seen(x.shape[2 + axis], dy.shape[2 + axis], stride[axis], padding[axis]) for axis in (0, 1)
    )
    dw_oc = _by_pixel(dy[:, :, p, q]).t() @ _by_pixel(x[:, :, rows, columns])
    return dw_oc[:, :, None, None]


def _seen(size: int, num_outputs: int, stride: int, padding: int) -> tuple[slice, slice]:
    """The pixels of an axis that outputs see, and these outputs: output p sees pixel p * stride - padding."""
    first = -(-padding // stride)
    end = min(num_outputs, (size - 1 + padding) // stride + 1)
    start = first * stride - padding
    return slice(start, start + max(0, end - first) * stride, stride), slice(first, max(first, end))


def _by_pixel(t: Tensor) -> Tensor:
    """[N*H*W, C] of t_nchw: no copy where it is dense and channels-last."""
    return t.permute(0, 2, 3, 1).reshape(-1, t.shape[1])


@grad_weight_by_group
def _of_whole_inputs(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """[O, N] x [N, K]; rows of `x` as they lie in memory, so that channels-last is not copied."""
    dy_on = dy.flatten(1).t()
    if x.is_contiguous(memory_format=torch.channels_last):
        o, c, r, s = weight.shape
        return (dy_on @ x.permute(0, 2, 3, 1).flatten(1)).view(o, r, s, c).permute(0, 3, 1, 2)
    return (dy_on @ x.flatten(1)).view(weight.shape)
