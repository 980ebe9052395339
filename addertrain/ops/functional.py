"""The public adder function. Checks arguments, then calls the operator."""

from typing import Any

import torch.fx
from torch import Tensor

from addertrain.ops import schemas
from addertrain.ops.geometry import IntPair, check_arguments, pair
from addertrain.ops.precision import is_autocast

__all__ = ["adder2d"]


def adder2d(
    x: Tensor,
    weight: Tensor,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    offset_free: bool = False,
    *,
    rectified: bool = False,
    centred: bool = False,
    groups: int = 1,
) -> Tensor:
    """Similarity of image patches to filters by the l1 distance (Chen et al., CVPR 2020, Eq. 2).

        Y[n,o,p,q] = -sum_{c,r,s} |X[n, c, p*u + r*e - a, q*u + s*e - a] - F[o,c,r,s]|

    with stride u, dilation e and zero padding a; a padded tap contributes -|F|. With `offset_free` the
    response is Y + sum|F|: the same network wherever a norm follows, and far less rounding. Gradients are the
    paper's, raw (Eq. 5, 6): the adaptive learning rate belongs to the optimizer. In G `groups` the filters
    of a group see its C / G channels alone, as in a grouped convolution.

    Args:
        x: x_nchw, contiguous or channels-last; float64, float32, float16 or bfloat16.
        weight: w_ocrs, (O, C / G, R, S), of the same dtype.
        rectified: a promise that x is what a ReLU let through (a pooling in between may be), which drops the
            gradient of its zeros: there the input gradient is Eq. 6 or 0, whichever is faster.
        centred: with `rectified`, a promise that dY sums to 0 in every channel, as behind a batch norm that
            trains: the filter gradient leaves out what subtracts that sum.

    Returns:
        y_nopq in the layout of `x`. Under autocast in its dtype, if `offset_free`; otherwise in float32,
        because the offset would drown the signal in 16 bits.

    Raises:
        ValueError, TypeError: shapes, numbers, dtypes or devices that do not fit.
    """
    if isinstance(x, torch.fx.Proxy) or isinstance(weight, torch.fx.Proxy):  # they answer no questions
        return _node_of_fx(x, weight, stride, padding, dilation, offset_free, rectified, centred, groups)
    strides, paddings, dilations = (
        pair(stride, "stride"),
        pair(padding, "padding"),
        pair(dilation, "dilation"),
    )
    check_arguments(
        x, weight, strides, paddings, dilations, groups=groups, is_autocast=is_autocast(x.device.type)
    )
    sizes = (strides, paddings, dilations)
    result: Tensor
    if rectified:
        result = schemas.RECTIFIED(x, weight, *sizes, offset_free, centred)
    else:
        result = schemas.ADDER2D(x, weight, *sizes, offset_free)
    return result


def _node_of_fx(x: Any, weight: Any, *rest: Any) -> Any:
    """The whole function as one node of the graph that torch.fx records."""
    tracer = (x if isinstance(x, torch.fx.Proxy) else weight).tracer
    *positional, rectified, centred, groups = rest
    keywords = {"rectified": rectified, "centred": centred, "groups": groups}
    return tracer.create_proxy("call_function", adder2d, (x, weight, *positional), keywords)
