"""The tolerance of an operator against the float64 answer: one rule and its derivation.

An output is a sum of n terms. Rounded n times to unit roundoff u, a sum is off by about sqrt(n) u sum|terms|:
the roundings are independent (Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis"). So

    |got - expected| <= SAFETY sqrt(n) u sum|terms| + u_out |what is rounded to the output's dtype|.

The terms are what any algorithm may add up: |x| and |w| apart in the forward (it may sum min(x, w), x, w),
|dY| in the input gradient, |dY X| and |dY F| in the filter gradient. 16-bit tensors are computed in float32
and rounded once; the filter gradient twice, for its convolution answers in 16 bits before F sum dY goes off.

A wrong tap, sample or channel changes an output by about sum|terms| / n: for the largest n, 2304, still 35
times the tolerance in float32.
"""

import torch
from torch import Tensor

SAFETY = 4.0
"""The table's worst is 2.5 (forward, K = 3: three sums where the rule counts one), 0.7 (both gradients)."""

_UNIT_ROUNDOFF = {
    torch.float64: 2.0**-53,
    torch.float32: 2.0**-24,
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
}


def unit_roundoff(dtype: torch.dtype) -> float:
    """Half the distance between 1 and the next number, relative."""
    return _UNIT_ROUNDOFF[dtype]


def tolerance(dtype: torch.dtype, num_terms: int, magnitude: Tensor, rounded: Tensor) -> Tensor:
    """Per output. `magnitude` is sum|terms|, `rounded` the size of what is rounded to `dtype`, in float64."""
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    from_sum = SAFETY * max(1, num_terms) ** 0.5 * _UNIT_ROUNDOFF[accumulator] * magnitude
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    return from_sum + _UNIT_ROUNDOFF[dtype] * rounded.abs() + smallest
