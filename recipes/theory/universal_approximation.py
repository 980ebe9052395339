"""Adder networks that approximate a given function, every weight by formula: see docs/theory.md.

A function is written as a sum of pyramids, one an adder unit behind a ReLU:

    g(x) = constant + sum_j height_j * relu(radius_j - ||x - centre_j||_1),    x in [0, 1]^d

`interpolation_1d`, `integer_slopes_1d` and `interpolation_2d` find the pyramids of a function f;
`wide_network` and `deep_network` build the network that computes them, in one hidden layer or in many.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from addertrain.nn import AdderLinear

Function = Callable[..., float]
"""From the d coordinates of a point to a number."""


@dataclass(frozen=True)
class Pyramid:
    """height * relu(radius - ||x - centre||_1)."""

    centre: tuple[float, ...]
    radius: float
    height: float


@dataclass(frozen=True)
class Sum:
    """A constant and pyramids over [0, 1]^d."""

    constant: float
    pyramids: tuple[Pyramid, ...]

    @property
    def dimension(self) -> int:
        """The number d of coordinates."""
        return len(self.pyramids[0].centre)


def interpolation_1d(f: Function, n: int) -> Sum:
    """The piecewise linear function through f(i / n): at most n pyramids, an error of at most L / (2 n)."""
    values = [f(i / n) for i in range(n + 1)]
    slopes = [n * (right - left) for left, right in itertools.pairwise(values)]
    jumps = [slopes[0], *(right - left for left, right in itertools.pairwise(slopes))]
    return Sum(values[0], tuple(_ramp(i / n, jump) for i, jump in enumerate(jumps) if i == 0 or jump))


def integer_slopes_1d(f: Function, n: int) -> Sum:
    """As `interpolation_1d`, with whole slopes: all heights are 1 or -1, and nothing is multiplied.

    Between i / n and (i + 1) / n the slope is m + 1 for a share of the way and m for the rest, where m is the
    chord's slope rounded down; whichever is nearer to the slope before comes first. At most
    (2 M + 1) n + M pyramids with M = L rounded up, and an error of at most (2 L + 1) / (4 n).

    Raises:
        ValueError: f has the same value at all i / n, which takes no network.
    """
    values = [f(i / n) for i in range(n + 1)]
    pyramids: list[Pyramid] = []
    slope = 0
    for i, (left, right) in enumerate(itertools.pairwise(values)):
        chord = n * (right - left)
        low = math.floor(chord)
        share = chord - low
        pieces = [(low + 1, share), (low, 1 - share)]
        if abs(low - slope) < abs(low + 1 - slope):
            pieces.reverse()
        start = float(i)
        for piece, length in pieces:
            if length > 0:
                pyramids += [_ramp(start / n, math.copysign(1.0, piece - slope))] * abs(piece - slope)
                slope, start = piece, start + length
    if not pyramids:
        raise ValueError(f"integer_slopes_1d: expected a function that varies, got {values[0]} everywhere.")
    return Sum(values[0], tuple(pyramids))


def _ramp(knot: float, height: float) -> Pyramid:
    """height * relu(x - knot) for x up to 1: the flank of a pyramid with its top at 1."""
    return Pyramid((1.0,), 1.0 - knot, height)


def interpolation_2d(f: Function, n: int) -> Sum:
    """Linear on the triangles into which both diagonals cut n * n squares: an error of at most L / n.

    It has f's values at the corners of squares, and the mean of four corners at a square's centre. At most
    2 (n + 3)^2 pyramids, with radius 1 / n and 2 / n around the corners and those around them.
    """

    def at(i: int, j: int) -> float:
        """f at a corner; beyond the border, f at the nearest point of it."""
        return f(min(max(i / n, 0.0), 1.0), min(max(j / n, 0.0), 1.0))

    pyramids = []
    for i, j in itertools.product(range(-1, n + 2), repeat=2):
        neighbours = at(i - 1, j) + at(i + 1, j) + at(i, j - 1) + at(i, j + 1)
        centre = (i / n, j / n)
        if (i not in (-1, n + 1)) and (j not in (-1, n + 1)):  # else it ends at the border
            pyramids.append(Pyramid(centre, 1 / n, n * (at(i, j) / 2 - neighbours / 4)))
        pyramids.append(Pyramid(centre, 2 / n, n * at(i, j) / 4))
    return Sum(0.0, tuple(pyramid for pyramid in pyramids if pyramid.height != 0))


def wide_network(total: Sum) -> nn.Sequential:
    """Adder layer, norm, ReLU, adder layer: one hidden unit a pyramid, in float64.

    The norm (its statistics are 0 and 1) multiplies by |height|; it is left out where all of these are 1. The
    second layer only adds and subtracts: -|h - v| is h - v where v is at least h, and -h where v is 0.
    """
    pyramids = total.pyramids
    hidden = _layer([pyramid.centre for pyramid in pyramids], [pyramid.radius for pyramid in pyramids])
    heights = [abs(pyramid.height) for pyramid in pyramids]
    tops = [max(height * pyramid.radius, 0.0) for height, pyramid in zip(heights, pyramids, strict=True)]
    reach = [top if pyramid.height > 0 else 0.0 for top, pyramid in zip(tops, pyramids, strict=True)]
    last = _layer([reach], [total.constant + math.fsum(reach)])
    scale = [] if set(heights) == {1.0} else [_norm(heights, [0.0] * len(heights))]
    return nn.Sequential(hidden, *scale, nn.ReLU(), last)


def deep_network(total: Sum) -> nn.Sequential:
    """One layer a pyramid, 2 (d + 2) units wide: adder layers, norms and ReLUs, in float64; d is 1 or 2.

    A layer passes on x and the sum of what was found before, and computes the next pyramid. Every quantity
    stands there twice, so that a unit can leave it out: -|z - 0| - |z - top| = -top. The norms halve what
    comes out twice.
    """
    signs = [math.copysign(1.0, pyramid.height) for pyramid in total.pyramids]
    tops = [abs(pyramid.height) * pyramid.radius for pyramid in total.pyramids]
    below = math.fsum(top for top, sign in zip(tops, signs, strict=True) if sign < 0)
    state = _State(total.dimension, sum_top=math.fsum(tops) + below, pyramid_top=max(tops))
    layers = [*_entrance(total.dimension, start=below)]
    for pyramid, sign in zip(total.pyramids, [1.0, *signs[:-1]], strict=True):
        layers += [*state.step(pyramid, sign), nn.ReLU()]
    return nn.Sequential(*layers, *state.exit(signs[-1], total.constant - below))


@dataclass(frozen=True)
class _State:
    """What a layer of the deep network hands on, each twice: x in [0, 1]^d, the sum, the last pyramid."""

    dimension: int
    sum_top: float
    pyramid_top: float

    @property
    def tops(self) -> list[float]:
        """The largest value of each quantity."""
        return [1.0] * self.dimension + [self.sum_top, self.pyramid_top]

    def step(self, pyramid: Pyramid, sign: float) -> list[nn.Module]:
        """x; the sum with the last pyramid added or subtracted; the next pyramid."""
        d, height = self.dimension, abs(pyramid.height)
        rows, factors, shifts = [], [], []
        for kept in range(d):
            row, offset = self._unit({kept: 1.0})
            rows, factors, shifts = [*rows, row], [*factors, 0.5], [*shifts, offset]
        row, offset = self._unit({d: 1.0, d + 1: sign})
        rows, factors, shifts = [*rows, row], [*factors, 0.5], [*shifts, offset]
        row, offset = self._unit({}, dict(enumerate(pyramid.centre)))
        rows, factors = [*rows, row], [*factors, height / 2]
        shifts.append(height * (pyramid.radius + offset))
        return _twice(rows, factors, shifts)

    def exit(self, sign: float, constant: float) -> list[nn.Module]:
        """The sum with the last pyramid, and the constant."""
        row, offset = self._unit({self.dimension: 1.0, self.dimension + 1: sign})
        return [_layer([row], [0.0]), _norm([0.5], [offset + constant])]

    def _unit(
        self, signs: dict[int, float], centres: dict[int, float] | None = None
    ) -> tuple[list[float], float]:
        """Weights of a unit, and what is to be added to half its response.

        That is sum_z sign_z z - sum_z |z - centre_z| over the quantities named; the others are left out.
        """
        row: list[float] = []
        offset = 0.0
        for number, top in enumerate(self.tops):
            if centres and number in centres:
                row += [centres[number]] * 2
            elif number in signs:
                row += [top if signs[number] > 0 else 0.0] * 2
                offset += top if signs[number] > 0 else 0.0
            else:
                row += [0.0, top]
                offset += top / 2
        return row, offset


def _entrance(dimension: int, *, start: float) -> list[nn.Module]:
    """From x to x, the sum's first value and no pyramid, each of them twice."""
    if dimension == 1:
        return [*_twice([[1.0]] * 3, [1.0, 0.0, 0.0], [1.0, start, 0.0]), nn.ReLU()]
    # Both coordinates enter every unit: first x + y and x - y + 1, then half of their sum and difference.
    mixed = _twice([[1.0, 1.0], [1.0, 0.0]], [1.0, 1.0], [2.0, 2.0])
    rows = [[2.0] * 4, [2.0, 2.0, 0.0, 0.0], [0.0] * 4, [0.0] * 4]
    return [*mixed, nn.ReLU(), *_twice(rows, [0.25, 0.25, 0.0, 0.0], [1.5, 1.5, start, 0.0]), nn.ReLU()]


def _twice(
    rows: Sequence[Sequence[float]], factors: Sequence[float], shifts: Sequence[float]
) -> list[nn.Module]:
    """An adder layer and a norm, of units that stand there twice each."""
    copies = [index for index in range(len(rows)) for _ in (0, 1)]
    return [
        _layer([rows[index] for index in copies], [0.0] * len(copies)),
        _norm([factors[index] for index in copies], [shifts[index] for index in copies]),
    ]


def _layer(weight: Sequence[Sequence[float]], bias: Sequence[float]) -> AdderLinear:
    layer = AdderLinear(len(weight[0]), len(weight), bias=True, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight, dtype=torch.float64))
        assert layer.bias is not None
        layer.bias.copy_(torch.tensor(bias, dtype=torch.float64))
    return layer


def _norm(factors: Sequence[float], shifts: Sequence[float]) -> nn.BatchNorm1d:
    """factor * y + shift: a norm whose statistics are 0 and 1."""
    norm = nn.BatchNorm1d(len(factors), eps=0.0, dtype=torch.float64).eval()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(factors, dtype=torch.float64))
        norm.bias.copy_(torch.tensor(shifts, dtype=torch.float64))
    return norm
