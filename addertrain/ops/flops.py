"""What torch's FlopCounterMode counts for the operators: two operations for each pair (x, w), in each pass.

A response takes a subtraction and an addition a pair, as the papers and `addertrain.report` count them. Each
of its two gradients counts as much, which is torch's rule for a convolution: a network counts the same as its
convolutional baseline. Norms count as 0, like torch's.
"""

import math
from collections.abc import Sequence
from typing import Any

from torch.utils.flop_counter import register_flop_formula

_PER_PAIR = 2

Shape = Sequence[int]


def count_response(operator: Any) -> None:
    """FlopCounterMode counts `operator`(x, weight, ...), which returns a response, alone or as the first."""

    @register_flop_formula(operator)
    def _count(_x: Shape, weight: Shape, *_: Any, out_shape: Any, **__: Any) -> int:
        y = out_shape if isinstance(out_shape[0], int) else out_shape[0]
        return _of_pairs(y, weight)


def count_gradient(operator: Any) -> None:
    """FlopCounterMode counts `operator`(dy, x, weight, ...)."""

    @register_flop_formula(operator)
    def _count(dy: Shape, _x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
        return _of_pairs(dy, weight)


def count_both_gradients(operator: Any) -> None:
    """FlopCounterMode counts `operator`(dy, x, weight, ...), which returns dX and dF."""

    @register_flop_formula(operator)
    def _count(dy: Shape, _x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
        return 2 * _of_pairs(dy, weight)


def _of_pairs(y_nopq: Shape, w_ocrs: Shape) -> int:
    n, _, p, q = y_nopq
    return _PER_PAIR * n * p * q * math.prod(w_ocrs)
