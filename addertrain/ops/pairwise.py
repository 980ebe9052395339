"""Sums over every pair of a patch and a filter, for variants of the adder layer that have no kernel.

    Y[o,m] = sum_k |X - W|^p      dX[k,m] = sum_o G s(W - X)      dW[o,k] = sum_m G s(X - W)
    s(d) = p |d|^(p-1) sgn(d), for p = 1 the sign alone

with X the zero-padded patches [K, M], W the filters [O, K], M the positions of a few images at a time;
float64 for float64, float32 otherwise. A second of a CPU core's time does 0.3e9 to 0.5e9 pairs for powers and
1.3e9 to 2.3e9 for signs; the kernels for powers do 3e9 to 8e9 there, and the layer's own 16e9 to 69e9.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from addertrain.ops.geometry import Sizes, output_shape
from addertrain.ops.grouping import grad_input_by_group, grad_weight_by_group, response_by_group
from addertrain.ops.layout import empty_like_input
from addertrain.ops.precision import wide

_CACHE_FLOATS, _DEVICE_FLOATS = 2**18, 2**24


def _slope_of(p: float) -> Callable[[Tensor], Tensor]:
    """s in place."""
    return Tensor.sign_ if p == 1.0 else lambda d: _power_(d.clone(), p - 1.0).mul_(p).copysign_(d)


def _power_(d: Tensor, exponent: float) -> Tensor:
    """|d|^exponent in place; log2 and exp2 take half the time of pow, and 0 gives 0."""
    return d.abs_().log2_().mul_(exponent).exp2_()


def _pairs(x_km: Tensor, w_ok: Tensor, p: float) -> Tensor:
    y_om, buffer = x_km.new_empty(w_ok.shape[0], x_km.shape[1]), torch.empty_like(x_km)
    for o, w_k in enumerate(w_ok):
        y_om[o] = _power_(torch.sub(x_km, w_k.unsqueeze(1), out=buffer), p).sum(0)
    return y_om


def _grad_patches(g_om: Tensor, x_km: Tensor, w_ok: Tensor, p: float) -> Tensor:
    dx_km, buffer, slope_ = torch.zeros_like(x_km), torch.empty_like(x_km), _slope_of(p)
    for g_m, w_k in zip(g_om, w_ok, strict=True):
        dx_km.addcmul_(slope_(torch.sub(w_k.unsqueeze(1), x_km, out=buffer)), g_m)
    return dx_km


def _grad_filters(g_om: Tensor, x_km: Tensor, w_ok: Tensor, p: float) -> Tensor:
    dw_ok, buffer, slope_ = torch.empty_like(w_ok), torch.empty_like(x_km), _slope_of(p)
    for o, w_k in enumerate(w_ok):
        dw_ok[o] = slope_(torch.sub(x_km, w_k.unsqueeze(1), out=buffer)) @ g_om[o]
    return dw_ok


def _blocks(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Iterator[tuple[slice, Tensor]]:
    """A few images [i, j) of x and their patches [K, (j - i) * P*Q]."""
    num_floats = _CACHE_FLOATS if x.device.type == "cpu" else _DEVICE_FLOATS
    _, _, p, q = output_shape(x, weight, stride, padding, dilation)
    step = max(1, num_floats // (weight[0].numel() * p * q))
    for start in range(0, x.shape[0], step):
        images = slice(start, start + step)
        patches_nkm = F.unfold(
            wide(x[images]), tuple(weight.shape[2:]), dilation=tuple(dilation), padding=tuple(padding),
            stride=tuple(stride),
        )  # fmt: skip
        yield images, _side_by_side(patches_nkm)


def _side_by_side(images: Tensor) -> Tensor:
    """[N, rows, positions] as [rows, N * positions]."""
    return images.transpose(0, 1).flatten(1).contiguous()


@response_by_group
def response(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, *, p: float, offset_free: bool
) -> Tensor:
    """-sum |X - F|^p, with `offset_free` plus sum |F|^p. x_nchw, w_ocrs -> y_nopq."""
    shape = output_shape(x, weight, stride, padding, dilation)
    w_ok = wide(weight).flatten(1).contiguous()
    offset = _power_(w_ok.clone(), p).sum(1).view(-1, 1, 1) if offset_free else 0.0
    y = empty_like_input(shape, x)
    for images, x_km in _blocks(x, weight, stride, padding, dilation):
        y_onpq = _pairs(x_km, w_ok, p).view(shape[1], -1, *shape[2:])
        y[images] = (offset - y_onpq.transpose(0, 1)).to(y.dtype)
    return y


@grad_input_by_group
def grad_input(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, *, p: float
) -> Tensor:
    """sum dY * s(F - X). dy_nopq, x_nchw, w_ocrs -> dx_nchw."""
    w_ok, dy_nom = wide(weight).flatten(1).contiguous(), wide(dy).flatten(2)
    dx = empty_like_input(x.shape, x)
    for images, x_km in _blocks(x, weight, stride, padding, dilation):
        dx_km = _grad_patches(_side_by_side(dy_nom[images]), x_km, w_ok, p)
        dx_nkm = dx_km.view(dx_km.shape[0], -1, dy_nom.shape[2]).transpose(0, 1)
        dx[images] = F.fold(
            dx_nkm, tuple(x.shape[2:]), tuple(weight.shape[2:]), dilation=tuple(dilation),
            padding=tuple(padding), stride=tuple(stride),
        ).to(dx.dtype)  # fmt: skip
    return dx


@grad_weight_by_group
def grad_weight(
    dy: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, *, p: float
) -> Tensor:
    """sum dY * s(X - F). dy_nopq, x_nchw, w_ocrs -> dw_ocrs."""
    w_ok, dy_nom = wide(weight).flatten(1).contiguous(), wide(dy).flatten(2)
    dw_ok = torch.zeros_like(w_ok)
    for images, x_km in _blocks(x, weight, stride, padding, dilation):
        dw_ok += _grad_filters(_side_by_side(dy_nom[images]), x_km, w_ok, p)
    return torch.empty_like(weight).copy_(dw_ok.view(weight.shape))
