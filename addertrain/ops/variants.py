"""Variants of the adder layer: the power of the distance, and the gradients at p = 1."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from addertrain.ops import functional
from addertrain.ops.geometry import IntPair, check_arguments, pair
from addertrain.ops.precision import is_autocast
from addertrain.ops.variants_power import ADDER2D_NORM
from addertrain.ops.variants_surrogate import ADDER2D_SURROGATE

FilterGradient = Literal["full", "sign"]
InputGradient = Literal["ht", "sign", "ht_scaled"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A variant of the adder layer; the default is the paper's, `addertrain.ops.functional.adder2d`.

    Args:
        p: power of the distance, in 1 .. 2; above 1 gradients are the true derivatives.
        filter_gradient: at p = 1, "full": X - F (Eq. 5); "sign": sgn(X - F).
        input_gradient: at p = 1, "ht": HT(F - X) (Eq. 6); "sign": sgn(F - X); "ht_scaled": HT(c (F - X)).
        input_slope: the c of "ht_scaled".

    Raises:
        ValueError: p or c out of range.
    """

    p: float = 1.0
    filter_gradient: FilterGradient = "full"
    input_gradient: InputGradient = "ht"
    input_slope: float = 1.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.p <= 2.0:
            raise ValueError(f"Variant: expected p from 1 to 2, got {self.p}.")
        if not 0.0 < self.input_slope < math.inf:
            raise ValueError(
                f"Variant: expected a finite input_slope above 0, got {self.input_slope}; for a sign, set "
                'input_gradient="sign".'
            )

    @property
    def slope(self) -> float:
        """The slope of the input gradient's clip at 0."""
        return {"ht": 1.0, "sign": math.inf, "ht_scaled": self.input_slope}[self.input_gradient]

    def adder2d(
        self,
        x: Tensor,
        weight: Tensor,
        stride: IntPair = 1,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        offset_free: bool = False,
        *,
        groups: int = 1,
    ) -> Tensor:
        """The response of this variant; arguments and errors as `addertrain.ops.functional.adder2d`."""
        has_sign_filter = self.filter_gradient == "sign"
        if self.p == 1.0 and not has_sign_filter and self.slope == 1.0:
            return functional.adder2d(x, weight, stride, padding, dilation, offset_free, groups=groups)
        sizes = (pair(stride, "stride"), pair(padding, "padding"), pair(dilation, "dilation"))
        check_arguments(x, weight, *sizes, groups=groups, is_autocast=is_autocast(x.device.type))
        y: Tensor
        if self.p == 1.0:
            y = ADDER2D_SURROGATE(x, weight, *sizes, offset_free, has_sign_filter, self.slope)
        else:
            y = ADDER2D_NORM(x, weight, *sizes, offset_free, self.p)
        return y
