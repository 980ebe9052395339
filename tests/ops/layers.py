"""The operator table: adder layers whose sizes meet every branch that a kernel may have."""

import itertools
import random
from dataclasses import dataclass

from addertrain.ops.geometry import output_size

Pair = tuple[int, int]


@dataclass(frozen=True)
class Layer:
    """Sizes of one layer; `str` names it in a failure."""

    N: int
    C: int
    O: int  # noqa: E741  the house's letter for filters
    H: int
    W: int
    R: int
    S: int
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def __str__(self) -> str:
        x, w = f"{self.N}x{self.C}x{self.H}x{self.W}", "x".join(map(str, self.filter_shape))
        return f"x {x}, w {w}, stride {self.stride}, padding {self.padding}, dilation {self.dilation}"

    @property
    def output(self) -> Pair:
        """(P, Q), not positive where the filter does not fit."""
        p, q = (
            output_size(size, taps, stride, padding, dilation)
            for size, taps, stride, padding, dilation in zip(
                (self.H, self.W), (self.R, self.S), self.stride, self.padding, self.dilation, strict=True
            )
        )
        return p, q

    @property
    def filter_shape(self) -> tuple[int, int, int, int]:
        """Of w_ocrs: (O, C / groups, R, S)."""
        return self.O, self.C // self.groups, self.R, self.S

    @property
    def sizes(self) -> tuple[list[int], list[int], list[int]]:
        """Stride, padding and dilation as the operators take them."""
        return list(self.stride), list(self.padding), list(self.dilation)


KERNELS = ((1, 1), (3, 3), (5, 5), (7, 7), (2, 3), (3, 1))
STRIDES = ((1, 1), (2, 2), (3, 3), (2, 1))


def _geometry(kernel: Pair) -> list[Layer]:
    """Every stride, padding, dilation on odd and even sizes; K = 27 for 3x3 and 75 for 5x5."""
    numbers = itertools.product(STRIDES, (0, 1, 3), (1, 2), ((9, 8), (8, 13)))
    layers = [
        Layer(2, 3, 5, *image, *kernel, stride, (padding, padding), (dilation, dilation))
        for stride, padding, dilation, image in numbers
    ]
    return [layer for layer in layers if min(layer.output) >= 1]


def _tiles() -> list[Layer]:
    """Channels, filters and columns at and beside the edges of registers and tiles; K = 1."""
    widths = (1, 4, 8, 9, 16, 17, 31, 48, 65, 130)
    layers = [Layer(2, c, o, 4, 5, 1, 1) for c, o in zip(widths, reversed(widths), strict=True)]
    pairs = itertools.product((1, 7, 16, 33), widths)
    layers += [Layer(1, c, o, 3, 4, 3, 3, padding=(1, 1)) for c, o in pairs]
    layers += [Layer(1, 5, 9, 4, columns, 3, 3, padding=(1, 1)) for columns in range(1, 20)]
    layers += [Layer(1, 2, 19, 5, columns, 5, 5, padding=(2, 2)) for columns in (1, 3, 4, 7, 10, 12, 15)]
    return [*layers, Layer(3, 1, 1, 5, 6, 1, 1)]


def _cuts() -> list[Layer]:
    """Large images, many images, many channels: layers that are worked on in several pieces."""
    return [
        Layer(1, 3, 5, 61, 40, 3, 3, padding=(1, 1)),
        Layer(1, 1, 6, 70, 33, 5, 5),
        Layer(2, 20, 7, 45, 44, 3, 3, (2, 2), (1, 1)),
        Layer(1, 96, 8, 19, 40, 3, 3, (2, 1), (1, 1)),
        Layer(70, 2, 3, 5, 5, 3, 3, padding=(1, 1)),
        Layer(67, 17, 5, 3, 3, 1, 1, (2, 2)),
        Layer(1, 256, 66, 4, 5, 3, 3, padding=(1, 1)),
        Layer(1, 40, 520, 3, 4, 3, 3, padding=(1, 1)),
        Layer(1, 2, 3, 70, 64, 64, 1),
        Layer(1, 1, 2, 9, 70, 1, 64, padding=(0, 3)),
    ]


def _whole_inputs() -> list[Layer]:
    """Filters as large as their input: fully connected layers, and one pixel under padding."""
    return [
        Layer(5, 16, 20, 5, 5, 5, 5),
        Layer(3, 7, 9, 2, 3, 2, 3, (2, 2)),
        Layer(65, 40, 27, 1, 1, 1, 1),
        Layer(4, 84, 10, 1, 1, 1, 1, (3, 3)),
        Layer(2, 6, 4, 1, 1, 3, 3, padding=(1, 1)),
        Layer(2, 6, 4, 1, 1, 1, 1, padding=(3, 1)),
        Layer(1, 1, 1, 1, 1, 1, 1),
    ]


def _rows() -> list[Layer]:
    """Rows that fill registers of positions: one, several, two images a register; tails, no padding."""
    return [
        Layer(3, 5, 17, 9, 8, 3, 3, padding=(1, 1)),
        Layer(2, 17, 33, 5, 7, 3, 3, padding=(1, 1)),
        Layer(1, 18, 16, 3, 6, 5, 5, padding=(2, 2)),
        Layer(3, 4, 20, 17, 16, 3, 3, padding=(1, 1)),
        Layer(1, 7, 18, 6, 15, 3, 3, padding=(0, 1)),
        Layer(2, 3, 16, 5, 32, 3, 5, padding=(1, 2)),
        Layer(1, 2, 16, 11, 44, 3, 3, padding=(1, 1)),
        Layer(1, 3, 16, 4, 64, 3, 3, padding=(4, 0), dilation=(2, 1)),
        Layer(1, 3, 16, 9, 16, 3, 3, padding=(2, 2), dilation=(3, 2)),
        Layer(1, 2, 16, 4, 14, 3, 3, padding=(1, 0)),
        Layer(3, 5, 17, 6, 4, 3, 3, padding=(1, 1)),
        Layer(2, 9, 8, 5, 3, 3, 3, padding=(1, 1)),
    ]


def _drawn(count: int = 80) -> list[Layer]:
    """Layers that nobody thought of; always the same ones."""
    draw = random.Random(0)
    layers: list[Layer] = []
    while len(layers) < count:
        numbers = [draw.randint(1, most) for most in (4, 20, 20, 15, 15)]
        kernel = draw.choices(range(1, 8), k=2)
        pairs = [tuple(draw.choices(range(low, 4), k=2)) for low in (1, 0, 1)]
        layer = Layer(*numbers, *kernel, *pairs)
        if min(layer.output) >= 1:
            layers.append(layer)
    return layers


def _small_groups() -> list[Layer]:
    """Depthwise layers, with several filters a channel, and groups of a few channels."""
    geometries = (
        (9, 8, 3, 3, (1, 1), (1, 1), (1, 1)), (8, 13, 3, 3, (2, 2), (1, 1), (1, 1)),
        (7, 7, 5, 5, (1, 1), (2, 2), (1, 1)), (11, 10, 5, 5, (2, 1), (3, 0), (1, 2)),
        (7, 9, 7, 7, (1, 1), (3, 3), (1, 1)), (10, 11, 2, 3, (3, 2), (0, 1), (2, 1)),
        (4, 5, 1, 1, (1, 1), (0, 0), (1, 1)), (5, 6, 1, 1, (2, 2), (1, 0), (1, 1)),
    )  # fmt: skip
    widths = ((2, 2, 2), (5, 5, 5), (16, 16, 16), (19, 19, 19), (33, 33, 33), (4, 8, 4), (7, 21, 7))
    widths += ((8, 12, 4), (18, 6, 6), (12, 9, 3), (64, 64, 16))
    layers = [
        Layer(2, c, o, *geometry, groups=groups)
        for (c, o, groups), geometry in itertools.product(widths, geometries)
    ]
    layers += [Layer(1, 17, 17, 4, columns, 3, 3, padding=(1, 1), groups=17) for columns in range(1, 20)]
    layers += [
        Layer(2, 24, 24, 61, 40, 3, 3, padding=(1, 1), groups=24),
        Layer(1, 130, 130, 45, 44, 3, 3, (2, 2), (1, 1), groups=130),
        Layer(35, 9, 9, 5, 5, 3, 3, padding=(1, 1), groups=9),
        Layer(3, 12, 12, 3, 4, 3, 4, groups=12),
        Layer(4, 10, 20, 1, 1, 3, 3, padding=(1, 1), groups=10),
        Layer(2, 40, 40, 11, 12, 5, 5, (2, 2), (2, 2), groups=40),
        Layer(1, 33, 33, 13, 12, 7, 7, (2, 2), (3, 3), groups=33),
        Layer(1, 48, 48, 5, 8, 3, 3, padding=(3, 0), groups=48),
    ]
    return layers


def _large_groups() -> list[Layer]:
    """Groups as large as layers of their own, odd splits, and filters as large as their input."""
    return [
        Layer(2, 64, 64, 6, 7, 3, 3, padding=(1, 1), groups=2),
        Layer(2, 66, 99, 5, 6, 3, 3, (2, 2), (1, 1), groups=3),
        Layer(1, 96, 34, 7, 6, 1, 1, groups=2),
        Layer(3, 50, 75, 6, 5, 1, 1, (2, 2), groups=5),
        Layer(2, 20, 30, 4, 3, 4, 3, groups=2),
        Layer(2, 68, 40, 9, 8, 2, 5, (1, 2), (0, 2), (2, 1), groups=2),
    ]


TABLE: dict[str, list[Layer]] = {
    **{f"{r}x{s}": _geometry((r, s)) for r, s in KERNELS},
    "tiles": _tiles(),
    "cuts": _cuts(),
    "whole inputs": _whole_inputs(),
    "rows": _rows(),
    "drawn": _drawn(),
    "small groups": _small_groups(),
    "large groups": _large_groups(),
    "empty batch": [
        Layer(0, 3, 5, 7, 6, 3, 3, (2, 2), (1, 1)),
        Layer(0, 4, 2, 1, 1, 1, 1),
        Layer(0, 4, 8, 5, 5, 3, 3, groups=4),
    ],
}
