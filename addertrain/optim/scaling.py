"""Eq. 13, the adaptive learning rate (ALR) of an adder layer, as a pure function.

It only decides the rate: it knows neither shards nor processes (gradient_norms.py) nor the order of an update
(adder_sgd.py).
"""

from typing import Literal

import torch
from torch import Tensor

AlrMode = Literal["global", "local", "off", "increased"]
"""global: Eq. 13 on the averaged gradient. local: Eq. 13 on each rank's own, for comparison. off: alpha = 1.
increased: alpha = a constant, the ILR ablation of Chen et al. 2020, section 4.5."""


def local_rate(sq_norm: Tensor, numel: Tensor | int, eta: float) -> Tensor:
    """Adaptive rate of every layer: alpha_l = eta * sqrt(k) / ||g_l||_2 (Chen et al. 2020, Eq. 13).

    The scaled gradient alpha_l * g_l has a root mean square of exactly eta, whatever the layer's size and
    however small its gradient. A gradient of zero gets the rate 0 instead of 0/0. One that is not finite
    stays so: a norm of NaN gives a rate of NaN, an infinite one the rate 0, and 0 * inf is NaN.

    Args:
        sq_norm: squared norms ||g_l||_2^2, of any shape.
        numel: number of elements k of each layer's filters, broadcastable to `sq_norm`.
        eta: the one hyperparameter, 0.2 in the paper's code.
    """
    rate = eta * numel**0.5 / sq_norm.sqrt()
    return torch.where(sq_norm == 0, torch.zeros_like(rate), rate)


def as_factors(rate: Tensor, like: Tensor) -> Tensor:
    """`rate` in the type in which gradients of the type of `like` are multiplied: float32, or float64.

    The largest number of float32 stands for larger ones: behind a gradient of 1e-40 an infinite factor would
    put NaN into the weights.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    return rate.clamp(max=torch.finfo(dtype).max).to(dtype)
