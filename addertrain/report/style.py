"""The style of every figure of a report; no other file imports matplotlib.

Colours are Okabe and Ito's, which colour-blind readers can tell apart, and lines differ in their dashes as
well. Legends are outside the axes. Ten classes get Paul Tol's muted palette and their names in the figure.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from addertrain.errors import RunError

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
except ModuleNotFoundError as error:
    raise RunError(f"report needs matplotlib ({error}): pip install 'addertrain[report]'") from None

__all__ = ["Axes", "Figure"]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
CLASS_COLORS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499",
    "#777777",
)  # fmt: skip
DASHES = ("-", "--", ":", "-.")
KIND_COLORS = {"adder": COLORS[0], "conv": COLORS[1], "binary": COLORS[2]}
KIND_NAMES = {"adder": "adder", "conv": "convolution", "binary": "binary"}

WIDTH_INCHES = 8.0
_DOTS_PER_INCH = 160
_MAX_LEGEND = len(COLORS)
_STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "addertrain",
}


@dataclass(frozen=True)
class Picture:
    """A figure as files, and its caption."""

    key: str
    caption: str
    png: bytes
    svg: bytes


@contextmanager
def house_style() -> Iterator[None]:
    """Every figure of a report is made and drawn within this block."""
    with matplotlib.rc_context(_STYLE):
        yield


def panels(
    rows: int, columns: int, *, panel_height: float, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of `rows` x `columns` axes, as wide as the page; `panel_height` in inches."""
    figure = Figure(figsize=(WIDTH_INCHES, rows * panel_height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    return figure, [list(row) for row in axes]


def picture(figure: Figure, key: str, caption: str) -> Picture:
    """Draws a figure, for screens and for print."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=_DOTS_PER_INCH)
    # The layout is final now; computing it again would take as long as drawing.
    figure.set_layout_engine("none")
    # Without the date the same figure is the same file.
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return Picture(key, caption, png.getvalue(), svg.getvalue())


def legend_above(figure: Figure, axes: Axes, *, columns: int = 4) -> None:
    """The legend of `axes`, above all axes of the figure."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(columns, len(labels)))


def layer_colors(names: Sequence[str]) -> list[str]:
    """One colour per layer: distinct ones for few layers, a scale from first to last for many."""
    if len(names) <= _MAX_LEGEND:
        return list(COLORS[: len(names)])
    scale = matplotlib.colormaps["viridis"]
    return [matplotlib.colors.to_hex(scale(0.92 * i / (len(names) - 1))) for i in range(len(names))]


def layer_legend(figure: Figure, axes: Sequence[Axes], names: Sequence[str]) -> None:
    """What the colours of `layer_colors` mean: a legend, or a scale of depth next to the axes."""
    if len(names) <= _MAX_LEGEND:
        legend_above(figure, axes[0], columns=_MAX_LEGEND)
        return
    shades = matplotlib.colors.ListedColormap(layer_colors(names))
    bar = figure.colorbar(ScalarMappable(Normalize(1, len(names)), shades), ax=list(axes), pad=0.02)
    bar.set_label(f"layer, {names[0]} to {names[-1]}")


def epoch_axis(axes: Axes) -> None:
    """Whole epochs along the bottom."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def decades_axis(axes: Axes) -> None:
    """A logarithmic axis with marks only at powers of ten."""
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())


def loss_axis(axes: Axes) -> None:
    """A logarithmic axis for what is drawn already: marks at powers of ten and between, as plain numbers."""
    axes.set_yscale("log")
    lowest, highest = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=_digits(highest / lowest)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))


def accuracy_axis(axes: Axes, lowest: float, highest: float) -> None:
    """Accuracy in percent on a scale that is logarithmic in the error, for data plotted as 100 - accuracy."""
    smallest, largest = max(100.0 - highest, 0.008), 100.0 - lowest
    digits = _digits(largest / smallest)
    errors = [digit * power for power in (0.01, 0.1, 1.0, 10.0) for digit in digits]
    axes.set_yscale("log")
    axes.set_ylim(largest * 1.15, smallest / 1.15)
    axes.yaxis.set_major_locator(FixedLocator(errors))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 - error:.10g}"))


def _digits(ratio: float) -> tuple[float, ...]:
    """What powers of ten are multiplied by to mark a logarithmic axis whose ends have this ratio."""
    return (1, 2, 5) if ratio > 30 else (1, 1.5, 2, 3, 4, 5, 6, 8)
