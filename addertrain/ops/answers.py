"""The correct result of an operator for a layer's tensors, and the tolerance of each number.

Values are the paper's equations (`reference`) in float64; the tolerance of each output follows from the rule
of `tolerance`. Tests and `addertrain.proof` compare kernels with these answers. Counts describe a layer that
repeats its operands, which gives the same sums with less work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.grad import conv2d_input

from addertrain.ops import reference
from addertrain.ops.grouping import groups_of, is_grouped
from addertrain.ops.tolerance import SAFETY, tolerance, unit_roundoff

Sizes = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Stride, padding and dilation, (vertical, horizontal) each."""


@dataclass(frozen=True)
class Answer:
    """The correct result of an operator, and the tolerance of each output."""

    value: Tensor
    tolerance: Tensor


def forward_answer(
    x: Tensor, w: Tensor, sizes: Sizes, *, offset_free: bool, channel_counts: Tensor | None = None
) -> Answer:
    """The response in the dtype of x. x_nchw, w_ocrs -> y_nopq.

    Args:
        channel_counts: [C], of a layer that has each channel so often; c |x - w| = |c x - c w|.
    """
    wide_x, wide_w, num_terms = x.double(), w.double(), w[0].numel()
    if channel_counts is not None:
        per_channel = channel_counts.double().view(1, -1, 1, 1)
        wide_x, wide_w = wide_x * per_channel, wide_w * per_channel
        num_terms = int(channel_counts.sum()) * w.shape[2] * w.shape[3]
    y = reference.adder2d(wide_x, wide_w, *sizes, offset_free)
    zeros = torch.zeros_like(wide_w if is_grouped(x, w) else wide_w[:1])
    x_sums = -reference.adder2d(wide_x, zeros, *sizes, False)
    magnitude = x_sums + wide_w.abs().sum((1, 2, 3)).view(1, -1, 1, 1)
    return Answer(y, tolerance(x.dtype, num_terms, magnitude, y))


def grad_input_answer(
    dy: Tensor,
    x: Tensor,
    w: Tensor,
    sizes: Sizes,
    *,
    is_saturated: bool,
    filter_counts: Tensor | None = None,
) -> Answer:
    """Eq. 6. dy_nopq, x_nchw, w_ocrs -> dx_nchw.

    Args:
        is_saturated: GPUs form HT(w - x) as 2 sat((w + 1)/2 - x/2) - 1, in 16 bits in float16. The rounding
            of (w + 1)/2 moves such an element by u (1 + |w|) at most, independently of the others.
        filter_counts: [O], of a layer that has each filter so often, with the same dY.
    """
    wide_dy, wide_x, wide_w = dy.double(), x.double(), w.double()
    num_terms = w.numel() // x.shape[1]
    if filter_counts is not None:
        wide_dy = wide_dy * filter_counts.double().view(1, -1, 1, 1)
        num_terms = int(filter_counts.sum()) * w.shape[2] * w.shape[3]
    dx = reference.adder2d_grad_input(wide_dy, wide_x, wide_w, *sizes)
    far_below = torch.full_like(wide_x, -1e6)  # HT(w - x) = 1
    magnitude = reference.adder2d_grad_input(wide_dy.abs(), far_below, wide_w, *sizes)
    allowed = tolerance(x.dtype, num_terms, magnitude, dx)
    if is_saturated:
        # The same gather with (1 + |w|)^2 in the place of HT: a convolution's input gradient.
        stride, padding, dilation = (tuple(size) for size in sizes)
        squares = conv2d_input(
            list(x.shape), (1 + wide_w.abs()) ** 2, wide_dy**2, stride, padding, dilation, groups_of(x, w)
        )
        element = torch.float16 if x.dtype.itemsize == 2 else x.dtype
        allowed = allowed + SAFETY * unit_roundoff(element) * squares.sqrt()
    return Answer(dx, allowed)


def grad_weight_answer(
    dy: Tensor, x: Tensor, w: Tensor, sizes: Sizes, *, image_counts: Tensor | None = None
) -> Answer:
    """Eq. 5. dy_nopq, x_nchw, w_ocrs -> dw_ocrs.

    Args:
        image_counts: [N], of a batch that has each image so often.
    """
    wide_dy, wide_x, wide_w = dy.double(), x.double(), w.double()
    num_terms = dy.numel() // dy.shape[1]
    if image_counts is not None:
        wide_dy = wide_dy * image_counts.double().view(-1, 1, 1, 1)
        num_terms = int(image_counts.sum()) * dy.shape[2] * dy.shape[3]
    dw = reference.adder2d_grad_weight(wide_dy, wide_x, wide_w, *sizes)
    magnitude = reference.adder2d_grad_weight(wide_dy.abs(), wide_x.abs(), -wide_w.abs(), *sizes)
    w_dy_sum = wide_w * wide_dy.sum((0, 2, 3)).view(-1, 1, 1, 1)
    rounded = dw.abs() + (dw + w_dy_sum).abs() + w_dy_sum.abs()
    return Answer(dw, tolerance(x.dtype, num_terms, magnitude, rounded))


def mistake(got: Tensor, answer: Answer) -> str | None:
    """What is wrong with `got`, in a few words; None if it is right."""
    expected = answer.value
    if got.shape != expected.shape:
        return f"shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    if got.numel() == 0:
        return None
    excess = ((got.double() - expected).abs() / answer.tolerance).nan_to_num(nan=torch.inf)
    worst = int(excess.argmax())
    if excess.flatten()[worst] <= 1:
        return None
    at = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), got.shape))
    num_wrong = int((excess > 1).sum())
    return (
        f"{got[at].item():.9g} at {at}, expected {expected[at].item():.9g} "
        f"within {answer.tolerance[at].item():.2g} ({num_wrong} of {got.numel()} are off)"
    )
