"""The correct results with the p-th power of the distance, and the tolerance of each number.

Values are the equations of `variants_power` by `pairwise`, in float64. The tolerance is the rule of
`tolerance`, whose terms are |x - w|^p, |w|^p and |dY| p |x - w|^(p-1), plus the error of a term itself: a
compiled kernel rounds the difference and fits a polynomial to the power (kernels/csrc/cpu/power/element.h),
which stays below _OF_A_TERM units of roundoff. Tests and `addertrain.proof` compare kernels with these
answers.
"""

import torch
from torch import Tensor

from addertrain.ops import pairwise
from addertrain.ops.answers import Answer, Sizes
from addertrain.ops.tolerance import tolerance, unit_roundoff

_OF_A_TERM = 14.0


def power_response_answer(
    x: Tensor, w: Tensor, sizes: Sizes, *, p: float, offset_free: bool, channel_counts: Tensor | None = None
) -> Answer:
    """-sum |x - w|^p, or with sum |w|^p added, in the dtype of x. x_nchw, w_ocrs -> y_nopq.

    Args:
        channel_counts: [C], of a layer that has each channel so often; c |x - w|^p = |c^(1/p) (x - w)|^p.
    """
    wide_x, wide_w, num_terms = x.double(), w.double(), w[0].numel()
    if channel_counts is not None:
        factors = channel_counts.double().pow(1 / p).view(1, -1, 1, 1)
        wide_x, wide_w = wide_x * factors, wide_w * factors
        num_terms = int(channel_counts.sum()) * w.shape[2] * w.shape[3]
    distances = -pairwise.response(wide_x, wide_w, *sizes, p=p, offset_free=False)
    offset = wide_w.abs().pow(p).sum((1, 2, 3)).view(1, -1, 1, 1) if offset_free else 0.0
    return _answer(offset - distances, x.dtype, num_terms, distances + offset)


def power_grad_input_answer(
    dy: Tensor, x: Tensor, w: Tensor, sizes: Sizes, *, p: float, filter_counts: Tensor | None = None
) -> Answer:
    """sum dY p |w - x|^(p-1) sgn(w - x). dy_nopq, x_nchw, w_ocrs -> dx_nchw.

    Args:
        filter_counts: [O], of a layer that has each filter so often, with the same dY.
    """
    wide_dy, num_terms = dy.double(), w.numel() // x.shape[1]
    if filter_counts is not None:
        wide_dy = wide_dy * filter_counts.double().view(1, -1, 1, 1)
        num_terms = int(filter_counts.sum()) * w.shape[2] * w.shape[3]
    wide = wide_dy, x.double(), w.double()
    dx = pairwise.grad_input(*wide, *sizes, p=p)
    return _answer(dx, x.dtype, num_terms, pairwise.grad_input(*_apart(*wide), *sizes, p=p).abs())


def power_grad_weight_answer(
    dy: Tensor, x: Tensor, w: Tensor, sizes: Sizes, *, p: float, image_counts: Tensor | None = None
) -> Answer:
    """sum dY p |x - w|^(p-1) sgn(x - w). dy_nopq, x_nchw, w_ocrs -> dw_ocrs.

    Args:
        image_counts: [N], of a batch that has each image so often.
    """
    wide_dy, num_terms = dy.double(), dy.numel() // dy.shape[1]
    if image_counts is not None:
        wide_dy = wide_dy * image_counts.double().view(-1, 1, 1, 1)
        num_terms = int(image_counts.sum()) * dy.shape[2] * dy.shape[3]
    wide = wide_dy, x.double(), w.double()
    dw = pairwise.grad_weight(*wide, *sizes, p=p)
    return _answer(dw, x.dtype, num_terms, pairwise.grad_weight(*_apart(*wide), *sizes, p=p).abs())


def _apart(dy: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Operands whose gradient is a sum of positive terms, none smaller than |dY| p |x - w|^(p-1)."""
    return dy.abs(), x.abs(), -w.abs()


def _answer(value: Tensor, dtype: torch.dtype, num_terms: int, magnitude: Tensor) -> Answer:
    element = unit_roundoff(torch.float64 if dtype == torch.float64 else torch.float32)
    allowed = tolerance(dtype, num_terms, magnitude, value) + _OF_A_TERM * element * magnitude
    return Answer(value, allowed)
