"""Compares the kernels of a norm, on the response of a layer, with its formulas in float64.

y = relu(s (x - mean) + bias + residual),  s = weight / sqrt(var + eps)
dx = s (g - sum g / n - x^ sum(g x^) / n),  x^ = (x - mean) / sqrt(var + eps),  g = dy where y > 0
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from addertrain.ops.answers import Answer
from addertrain.ops.tolerance import tolerance
from addertrain.proof.layers import ProvenLayer
from addertrain.proof.operators import Operators

_EPS = 1e-5
_IMAGES = 2
_FEW = 8
"""Roundings of a number that follows from a handful of products."""
_Parts = tuple[str, Callable[[], tuple[Tensor, ...]], Callable[[], tuple[Answer, ...]]]


@dataclass(frozen=True)
class _Norm:
    """A norm's numbers in float64, [1, C, 1, 1] each, over n values a channel."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    mean: Tensor
    var: Tensor
    residual: Tensor | None

    @property
    def count(self) -> int:
        return self.x.numel() // self.x.shape[1]

    @cached_property
    def inverse_std(self) -> Tensor:
        return (self.var + _EPS).rsqrt()

    @cached_property
    def normalised(self) -> Tensor:
        return (self.x - self.mean) * self.inverse_std

    @cached_property
    def sum(self) -> Tensor:
        """The input of the ReLU."""
        y = self.normalised * self.weight + self.bias
        return y if self.residual is None else y + self.residual


def norm_trials(layer: ProvenLayer, operators: Operators) -> Iterator[_Parts]:
    """(kernel, run, answers) of the norm's pass and of its gradient; on CPUs also of the end of a block."""
    if operators.has_sums:
        yield from _trials("batch_norm_relu_of_sums", layer, operators, has_residual=False)
    elif layer.dtype == torch.float32 or layer.dtype.itemsize == 2:  # CPUs widen 16 bits
        yield from _trials("batch_norm_relu", layer, operators, has_residual=False)
        yield from _trials("batch_norm_residual_relu", layer, operators, has_residual=True)


def _trials(kernel: str, layer: ProvenLayer, operators: Operators, *, has_residual: bool) -> Iterator[_Parts]:
    dtype = layer.dtype if operators.has_sums else torch.float32
    (p, q), device = layer.output, operators.device
    generator = torch.Generator().manual_seed(layer.O)
    x, dy, residual = (
        torch.randn(_IMAGES, p, q, layer.O, generator=generator).permute(0, 3, 1, 2).to(device, dtype)
        for _ in range(3)
    )
    x = (x + 4 * torch.randn(1, layer.O, 1, 1, generator=generator).to(device)).to(dtype)
    weight, bias = (torch.linspace(low, 1.5, layer.O, device=device) for low in (0.5, -1.0))
    beside = residual if has_residual else None
    wide = _of(x, weight, bias, beside)
    # A sum so near 0 that the ReLU may take it either way passes no gradient on.
    dy = dy * (wide.sum.abs() > _forward_tolerance(wide, dtype))

    def run() -> tuple[Tensor, ...]:
        return operators.norm(x, weight, bias, _EPS, beside)

    y, mean, var = (wide.sum.clamp_min(0).to(dtype), wide.mean, wide.var)
    numbers = (mean.flatten().float(), var.flatten().float())
    yield kernel, run, lambda: _forward_answers(wide, dtype)
    yield (
        f"{kernel}_backward",
        lambda: operators.norm_backward(dy, y, x, weight, bias, *numbers, _EPS, beside),
        lambda: _backward_answers(_of(x, weight, bias, beside, *numbers), dy),
    )


def _of(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None,
    mean: Tensor | None = None, var: Tensor | None = None,
) -> _Norm:  # fmt: skip
    wide = x.double()
    if mean is None or var is None:
        var, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
    weight, bias, mean, var = (t.double().view(1, -1, 1, 1) for t in (weight, bias, mean, var))
    return _Norm(wide, weight, bias, mean, var, None if residual is None else residual.double())


def _statistics_tolerance(norm: _Norm) -> tuple[Tensor, Tensor]:
    """Of mean and var: a channel's values may be added up in float32."""
    mean_of, f32 = (lambda t: t.mean((0, 2, 3), keepdim=True)), torch.float32
    spread = (norm.x - norm.mean).square()
    off_mean = tolerance(f32, norm.count, mean_of(norm.x.abs()), norm.mean)
    off_var = tolerance(f32, norm.count, mean_of(norm.x.square()), norm.var)
    return off_mean, off_var + tolerance(f32, 1, mean_of(spread), norm.var)


def _forward_tolerance(norm: _Norm, dtype: torch.dtype) -> Tensor:
    off_mean, off_var = _statistics_tolerance(norm)
    scale = (norm.weight * norm.inverse_std).abs()
    magnitude = scale * (norm.x.abs() + norm.mean.abs()) + norm.bias.abs()
    if norm.residual is not None:
        magnitude = magnitude + norm.residual.abs()
    from_var = (norm.normalised * norm.weight).abs() * off_var / (2 * (norm.var + _EPS))
    return tolerance(dtype, _FEW, magnitude, norm.sum) + scale * off_mean + from_var


def _forward_answers(norm: _Norm, dtype: torch.dtype) -> tuple[Answer, ...]:
    off_mean, off_var = _statistics_tolerance(norm)
    y = Answer(norm.sum.clamp_min(0), _forward_tolerance(norm, dtype))
    return y, Answer(norm.mean.flatten(), off_mean.flatten()), Answer(norm.var.flatten(), off_var.flatten())


def _backward_answers(norm: _Norm, dy: Tensor) -> tuple[Answer, ...]:
    """dx, dweight, dbias; with a residual also its gradient."""
    f32, n, dtype = torch.float32, norm.count, dy.dtype
    g = dy.double().masked_fill(norm.sum <= 0, 0)
    total = lambda t: t.sum((0, 2, 3), keepdim=True)  # noqa: E731
    x_size = (norm.x.abs() + norm.mean.abs()) * norm.inverse_std
    dbias, dweight = total(g), total(g * norm.normalised)
    off_bias = tolerance(f32, n, total(g.abs()), dbias)
    off_weight = tolerance(f32, n, total(g.abs() * x_size), dweight)
    scale = norm.weight * norm.inverse_std
    dx = (g - dbias / n - norm.normalised * dweight / n) * scale
    magnitude = (g.abs() + dbias.abs() / n + x_size * dweight.abs() / n) * scale.abs()
    from_sums = scale.abs() * (off_bias + norm.normalised.abs() * off_weight) / n
    gradients = (
        Answer(dx, tolerance(dtype, _FEW, magnitude, dx) + from_sums),
        Answer(dweight.flatten(), off_weight.flatten()),
        Answer(dbias.flatten(), off_bias.flatten()),
    )
    if norm.residual is None:
        return gradients
    return *gradients, Answer(g, tolerance(dtype, 1, g.abs(), g))
