"""The transposed adder layer, computed by ordinary adder layers without inserting zeros.

    Y[n,o,p] = -sum_{c, i, r: i*u + r*e - a = p} |X[n,c,i] - F[c,o,r]|        (the same along the other axis)

is what a transposed convolution computes, with -|x - w| for each product: every pixel i reaches the outputs
i*u + r*e - a. The zeros that some write between the pixels for a stride u are no pixels and take no part,
since -|0 - w| would add noise of the filter's size. Pixels outside the image are zeros that do take part, as
the padding of every layer here, so that all outputs of one remainder p mod u add the same number of terms.

Such outputs see the same rows of the filter, those with r*e = p + a (mod u). They are an ordinary layer of
stride 1, and remainders that see equally many rows are one layer of several times as many filters, whose
results are moved to their places.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from addertrain.ops.layout import memory_format

Pair = tuple[int, int]


@dataclass(frozen=True)
class Phase:
    """The outputs of one remainder along one axis.

    Args:
        first: the first output; the others follow in steps of the stride.
        extra: how many outputs there are more than pixels.
        rows: the filter's rows that they see.
        start: the pixel under the last of these rows at the first output.
    """

    first: int
    extra: int
    rows: range
    start: int

    def edges(self, step: int) -> Pair:
        """Zeros that the first and the last output see, with pixels `step` apart."""
        return -self.start, self.start + self.extra + (len(self.rows) - 1) * step


@dataclass(frozen=True)
class Run:
    """An ordinary layer of stride 1 that computes several remainders."""

    phases: tuple[tuple[Phase, Phase], ...]
    padding: Pair
    dilation: Pair

    def filters(self, weight: Tensor, groups: int) -> Tensor:
        """w_ocrs of the layer from that of the transposed one, (C, O/G, R, S); G stays the outermost."""
        w = weight.unflatten(0, (groups, -1)).transpose(1, 2)
        parts = []
        for vertical, horizontal in self.phases:
            rows, columns = (
                slice(each.start, each.stop, each.step) for each in (vertical.rows, horizontal.rows)
            )
            parts.append(w[:, :, :, rows, columns].flip(3, 4))
        return torch.stack(parts, 1).flatten(0, 2)


@dataclass(frozen=True)
class Transposition:
    """The geometry of a transposed layer, with torch's meaning of each number."""

    kernel: Pair
    stride: Pair
    padding: Pair
    output_padding: Pair
    dilation: Pair

    def output(self, size: Sequence[int]) -> Pair:
        """(P, Q) of an image of `size`, (H, W)."""
        p, q = (
            (pixels - 1) * u - 2 * a + e * (taps - 1) + more + 1
            for pixels, taps, u, a, more, e in zip(
                size, self.kernel, self.stride, self.padding, self.output_padding, self.dilation, strict=True
            )
        )
        return p, q

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The ordinary layers, one for each number of rows and columns that outputs see."""
        together: dict[Pair, list[tuple[Phase, Phase]]] = {}
        for vertical, horizontal in product(self._phases(0), self._phases(1)):
            together.setdefault((len(vertical.rows), len(horizontal.rows)), []).append((vertical, horizontal))
        steps = [e // math.gcd(e, u) for e, u in zip(self.dilation, self.stride, strict=True)]
        runs = []
        for phases in together.values():
            down, right = (
                max(0, *(edge for pair in phases for edge in pair[axis].edges(steps[axis])))
                for axis in (0, 1)
            )
            runs.append(Run(tuple(phases), (down, right), (steps[0], steps[1])))
        return tuple(runs)

    def _phases(self, axis: int) -> list[Phase]:
        taps, u, a, e = (numbers[axis] for numbers in (self.kernel, self.stride, self.padding, self.dilation))
        beyond = e * (taps - 1) + self.output_padding[axis] + 1 - 2 * a  # outputs besides those of the stride
        found = []
        for first in range(u):
            rows = [row for row in range(taps) if (row * e - first - a) % u == 0]
            if rows:
                step = u // math.gcd(e, u)
                extra = -(-(beyond - first) // u) - 1
                start = (first + a - rows[-1] * e) // u
                found.append(Phase(first, extra, range(rows[0], taps, step), start))
        return found

    def pairs(self, size: Sequence[int]) -> int:
        """Pairs (x, w) of one filter and one channel in a pass over an image of `size`, (H, W)."""
        vertical, horizontal = (
            sum(len(phase.rows) * max(size[axis] + phase.extra, 0) for phase in self._phases(axis))
            for axis in (0, 1)
        )
        return vertical * horizontal

    def assembled(self, responses: Sequence[Tensor], x: Tensor, groups: int) -> Tensor:
        """y_nopq from the responses of all runs to `x`; outputs that no pixel reaches are 0."""
        first = responses[0]
        filters = first.shape[1] // len(self.runs[0].phases)
        shape = (x.shape[0], filters, *self.output(x.shape[2:]))
        is_covered = sum(len(run.phases) for run in self.runs) == math.prod(self.stride)
        y = first.new_empty(shape) if is_covered else first.new_zeros(shape)
        y = y.contiguous(memory_format=memory_format(x))
        for run, response in zip(self.runs, responses, strict=True):
            parts = response.unflatten(1, (groups, len(run.phases), -1)).unbind(2)
            for part, phases in zip(parts, run.phases, strict=True):
                places, wanted = [], []
                for axis, phase in enumerate(phases):
                    begin = run.padding[axis] + phase.start
                    count = max(x.shape[2 + axis] + phase.extra, 0)
                    wanted.append(slice(begin, begin + count))
                    places.append(slice(phase.first, None, self.stride[axis]))
                y[:, :, places[0], places[1]] = part.flatten(1, 2)[:, :, wanted[0], wanted[1]]
        return y
