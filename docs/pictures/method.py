"""The pictures of docs/method.md. What they show is computed here, or read from this project's results."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from addertrain.ops import reference
from addertrain.optim import lowered_power
from addertrain.optim.scaling import local_rate
from docs.pictures.canvas import WIDTH, Axes, Canvas, Point

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
FILTER = (2.0, 1.0)  # of two weights, so that its response can be drawn as a map
LEVELS = 6


def similarity(theme: str) -> str:
    """Where the response of one filter is equal: diamonds around it, and lines across its direction."""
    canvas = Canvas(
        462, "Inputs of equal response: diamonds around a filter, lines across its direction", theme
    )
    for left, name, formula, colour in (
        (24, "Adder: distance", "−|x₁ − w₁| − |x₂ − w₂|", "add"),
        (372, "Convolution: angle", "x₁w₁ + x₂w₂", "multiply"),
    ):
        canvas.words(left, 40, name, size=22, colour=colour, bold=True)
        axes = Axes(canvas, left, 58, 324, 324, (-2.6, 5.4), (-3.2, 4.8))
        axes.frame()
        axes.rule(x=0)
        axes.rule(y=0)
        for level in range(LEVELS, 0, -1):
            corners = _diamond(0.55 * level) if colour == "add" else _line(3.2 * (level - 2.5), axes)
            share = (level - 1) / (LEVELS - 1)
            strength = 1 - 0.75 * share if colour == "add" else 0.25 + 0.75 * share
            canvas.path([axes.at(*corner) for corner in corners], colour=colour, width=3, opacity=strength)
        at = axes.at(*FILTER)
        if colour == "multiply":
            canvas.arrow(axes.at(0, 0), at, colour="ink")
        canvas.dot(*at, colour="ink")
        canvas.words(at[0] + 10, at[1] - 10, "w", size=22, bold=True)
        canvas.words(left + 162, 410, formula, size=20, colour=colour, anchor="middle")
    words = "The response is equal along a line, and larger along a stronger one."
    canvas.words(360, 444, words, size=17, colour="muted", anchor="middle")
    return canvas.svg()


def _diamond(radius: float) -> list[Point]:
    x, y = FILTER
    return [(x + radius, y), (x, y + radius), (x - radius, y), (x, y - radius), (x + radius, y)]


def _line(level: float, axes: Axes) -> list[Point]:
    """The two ends of x·w = level inside the panel."""
    (left, right), (low, high) = axes.x_range, axes.y_range
    w, v = FILTER
    ends = [(x, (level - w * x) / v) for x in (left, right)] + [((level - v * y) / w, y) for y in (low, high)]
    inside = [(x, y) for x, y in ends if left - 1e-9 <= x <= right + 1e-9 and low - 1e-9 <= y <= high + 1e-9]
    return sorted({(round(x, 6), round(y, 6)) for x, y in inside})


def gradients(theme: str) -> str:
    """Of one pair: the filter's gradient, full and sign; the input's, clipped and not."""
    canvas = Canvas(430, "The two gradients of an adder layer beside the exact derivative", theme)
    steps = [k / 50 for k in range(-150, 151)]
    panels = (
        (58, "Filter: x − w", "difference x − w", steps, "add"),
        (402, "Input: HT(w − x)", "difference w − x", [min(max(d, -1.0), 1.0) for d in steps], "add"),
    )
    for left, name, label, values, colour in panels:
        canvas.words(left - 34, 40, name, size=22, colour=colour, bold=True)
        axes = Axes(canvas, left, 58, 294, 270, (-3, 3), (-3, 3))
        axes.frame()
        axes.rule(x=0)
        axes.rule(y=0)
        if values != steps:
            axes.curve(steps, steps, colour="muted", width=2, dashes="2 7")
        axes.curve([-3, 0, 0, 3], [-1, -1, 1, 1], colour="other", width=3, dashes="9 7")
        axes.curve(steps, values, colour=colour, width=4)
        for tick in (-3, -1, 1, 3):
            axes.label_x(tick, str(tick).replace("-", "−"))
            if abs(tick) == 1:
                axes.label_y(tick, str(tick).replace("-", "−"))
        canvas.words(left + 147, 376, label, size=19, colour="muted", anchor="middle")
    entries = (
        ("what backward returns", "add", ""),
        ("exact derivative", "other", "9 7"),
        ("not clipped", "muted", "2 7"),
    )
    _legend(canvas, 412, entries)
    return canvas.svg()


def _legend(canvas: Canvas, y: float, entries: Sequence[tuple[str, str, str]], left: float = 24) -> None:
    first = left
    for words, colour, dashes in entries:
        if left + 42 + 10.4 * len(words) > WIDTH:
            left, y = first, y + 28
        canvas.path([(left, y - 6), (left + 34, y - 6)], colour=colour, width=4, dashes=dashes)
        canvas.words(left + 42, y, words, size=18, colour="muted")
        left += 42 + 10.4 * len(words) + 22


def variance(theme: str) -> str:
    """The variance of responses by the number of input channels: Eq. 9, measured, and a convolution's."""
    canvas = Canvas(440, "The variance of an adder layer's responses grows with its inputs", theme)
    canvas.words(24, 40, "Variance of the response, 3×3 filters", size=22, bold=True)
    axes = Axes(canvas, 84, 58, 612, 280, (3.6, 9.4), (0.3, 10_000), log_y=math.log10)
    axes.frame()
    for tick in (1, 10, 100, 1000, 10_000):
        axes.rule(y=tick)
        axes.label_y(tick, f"{tick:,}")
    powers = range(4, 10)
    axes.curve(powers, [predicted_variance(2**k) for k in powers], colour="add", width=3)
    axes.curve(powers, [1.0 for _ in powers], colour="multiply", width=3, dashes="9 7")
    for k in powers:
        canvas.dot(*axes.at(k, measured_variance(2**k)), radius=7, colour="add")
        axes.label_x(k, str(2**k))
    canvas.words(390, 386, "input channels", size=19, colour="muted", anchor="middle")
    entries = (
        ("adder: Eq. 9 (dots: measured)", "add", ""),
        ("convolution, scaled filters", "multiply", "9 7"),
    )
    _legend(canvas, 420, entries)
    return canvas.svg()


def predicted_variance(num_channels: int) -> float:
    """Eq. 9 for 3 by 3 filters, inputs and filters from N(0, 1): (1 − 2/π)·d²·c_in·(Var X + Var F)."""
    return (1 - 2 / math.pi) * 9 * num_channels * (1 + 1)


def measured_variance(num_channels: int) -> float:
    """Of one filter's responses to 2000 patches, each with filters of its own."""
    draw = torch.Generator().manual_seed(num_channels)
    x, w = torch.randn(2, 2000, 9 * num_channels, generator=draw, dtype=torch.float64)
    return float((x - w).abs().sum(1).var())


def response_statistics() -> tuple[torch.Tensor, torch.Tensor]:
    """Responses of one filter at 4096 places, of Eq. 2 and offset-free, in standard deviations.

    64 channels, 3 by 3, filters of RMS 6 as training on CIFAR-10 makes them, inputs behind a ReLU.
    """
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 64, 66, 66, generator=draw, dtype=torch.float64).relu()
    w = 6 * torch.randn(1, 64, 3, 3, generator=draw, dtype=torch.float64)
    y = reference.adder2d(x, w, (1, 1), (0, 0), (1, 1), False).flatten()
    return y / y.std(), (y + w.abs().sum()) / y.std()


def norm(theme: str) -> str:
    """Where a channel's responses lie before its batch norm: far from 0, and near it without the offset."""
    canvas = Canvas(400, "Responses of a channel, with and without the offset, in standard deviations", theme)
    raw, offset_free = response_statistics()
    low = 20 * math.floor(float(raw.min()) / 20) - 20
    axes = Axes(canvas, 24, 96, 672, 210, (low, 20), (0, 0.5))
    axes.frame()
    axes.rule(x=0)
    for values, colour in ((raw, "multiply"), (offset_free, "add")):
        first = math.floor(2 * float(values.min())) / 2
        edges = [first + 0.5 * k for k in range(int(2 * (float(values.max()) - first)) + 2)]
        counts = [int(((values >= a) & (values < a + 0.5)).sum()) for a in edges]
        outline = [(edges[0], 0.0)]
        for edge, count in zip(edges, counts, strict=True):
            outline += [(edge, count / len(values) / 0.5), (edge + 0.5, count / len(values) / 0.5)]
        outline.append((edges[-1] + 0.5, 0.0))
        canvas.path([axes.at(*point) for point in outline], colour=colour, width=1.5, fill=colour)
    at_raw, at_free = (axes.at(float(values.mean()), 0.46) for values in (raw, offset_free))
    canvas.words(24, 40, "Y, the response of Eq. 2", size=22, colour="multiply", bold=True)
    canvas.words(24, 72, f"mean {_rounded(raw.mean())} standard deviations", size=19, colour="muted")
    canvas.words(696, 40, "Y + Σ|w|, offset-free", size=22, colour="add", bold=True, anchor="end")
    canvas.words(696, 72, f"mean {_rounded(offset_free.mean())}", size=19, colour="muted", anchor="end")
    canvas.arrow((at_raw[0] + 20, at_raw[1] + 70), (at_free[0] - 30, at_raw[1] + 70))
    canvas.words(
        (at_raw[0] + at_free[0]) / 2, at_raw[1] + 60, "+ Σ|w|", size=20, colour="muted", anchor="middle"
    )
    for tick in range(-40 * (-low // 40), 1, 40):
        axes.label_x(tick, str(tick).replace("-", "−"))
    canvas.words(
        360, 376, "response, in standard deviations of the channel", size=19, colour="muted", anchor="middle"
    )
    return canvas.svg()


def _rounded(value: torch.Tensor) -> str:
    return f"{float(value):.1f}".replace("-", "−")


def layer_gradients() -> list[tuple[str, float, float]]:
    """(layer, RMS of its adder gradient, of its convolution's) in LeNet-5-BN's first iteration on MNIST."""
    report = json.loads((RESULTS / "mnist_5" / "report.json").read_text(encoding="utf-8"))
    tables = {table["key"]: table for section in report["sections"] for table in section["tables"]}
    rows = tables["gradients_lenet5bn_mnist"]["rows"]
    return [
        (row["layer"], row["adder"]["mean"] / math.sqrt(numel), row["conv"]["mean"] / math.sqrt(numel))
        for row, numel in zip(rows, NUMEL, strict=True)
    ]


NUMEL = (1 * 6 * 25, 6 * 16 * 25, 16 * 120 * 25, 120 * 84, 84 * 10)  # of LeNet-5-BN's filters


def adaptive_rate(theme: str) -> str:
    """What ALR makes of gradients that differ from layer to layer: steps of one size."""
    canvas = Canvas(470, "Gradients of LeNet-5-BN's layers, and the steps that ALR makes of them", theme)
    axes = Axes(canvas, 84, 76, 612, 300, (0, 5), (1e-5, 1), log_y=math.log10)
    canvas.words(24, 40, "Size of a layer's gradient (RMS of its elements)", size=22, bold=True)
    axes.frame()
    for power in range(-5, 1):
        axes.rule(y=10.0**power)
        axes.label_y(10.0**power, f"10{'⁻' if power else ''}{'⁰¹²³⁴⁵'[-power]}")
    for k, (layer, adder, convolution) in enumerate(layer_gradients()):
        sq_norm = torch.tensor(adder**2 * NUMEL[k], dtype=torch.float64)
        alpha = float(local_rate(sq_norm, torch.tensor(NUMEL[k], dtype=torch.float64), 0.2))
        before, after = axes.at(k + 0.5, adder), axes.at(k + 0.5, alpha * adder)
        canvas.arrow((before[0], before[1] - 10), (after[0], after[1] + 10), colour="add")
        canvas.dot(*before, radius=8, colour="add")
        canvas.rect(after[0] - 8, after[1] - 8, 16, 16, fill="add")
        canvas.dot(*axes.at(k + 0.78, convolution), radius=8, colour="multiply")
        axes.label_x(k + 0.5, layer)
    y = 444
    canvas.dot(34, y - 6, radius=8, colour="add")
    canvas.words(50, y, "adder, raw", size=18, colour="muted")
    canvas.rect(172, y - 14, 16, 16, fill="add")
    canvas.words(196, y, "adder, after ALR: η = 0.2 everywhere", size=18, colour="muted")
    canvas.dot(580, y - 6, radius=8, colour="multiply")
    canvas.words(596, y, "convolution", size=18, colour="muted")
    return canvas.svg()


def power(theme: str) -> str:
    """Between L2 and L1: the distance of one pair for three powers, and how the power falls."""
    canvas = Canvas(420, "A power that falls from 2 to 1 turns an L2 distance into an L1 distance", theme)
    canvas.words(24, 40, "|x − w|ᵖ of one pair", size=22, bold=True)
    axes = Axes(canvas, 58, 58, 294, 270, (-2, 2), (0, 4))
    axes.frame()
    xs = [k / 50 for k in range(-100, 101)]
    for p, colour in ((2.0, "multiply"), (1.5, "other"), (1.0, "add")):
        axes.curve(xs, [abs(x) ** p for x in xs], colour=colour, width=4)
    for tick in (-2, 0, 2):
        axes.label_x(tick, str(tick).replace("-", "−"))
    for tick in (0, 2, 4):
        axes.label_y(tick, str(tick))
    canvas.words(368, 40, "p while training", size=22, bold=True)
    falling = Axes(canvas, 402, 58, 294, 270, (0, 1.4), (0.9, 2.1))
    falling.frame()
    num_steps = 100
    falling.curve(
        [k / num_steps for k in range(141)],
        [lowered_power(k, num_steps, start=2.0) for k in range(141)],
        colour="ink",
        width=4,
    )
    for tick in (1, 1.5, 2):
        falling.label_y(tick, f"{tick:g}")
    falling.label_x(1, "p_epochs")
    falling.label_x(0.06, "0")
    entries = (("p = 2", "multiply", ""), ("p = 1.5", "other", ""), ("p = 1: the adder layer", "add", ""))
    _legend(canvas, 398, entries, left=58)
    return canvas.svg()


def recalibration(theme: str) -> str:
    """Accuracy after each epoch of one training, by the statistics that its norms are evaluated with."""
    canvas = Canvas(464, "Accuracy in mid-training depends on batch norm's statistics", theme)
    curves = json.loads((HERE / "recalibration.json").read_text(encoding="utf-8"))
    canvas.words(24, 40, "Top-1 after each epoch, % (LeNet-5-BN, digits)", size=22, bold=True)
    num_epochs = len(next(iter(curves.values())))
    axes = Axes(canvas, 72, 58, 624, 280, (1, num_epochs), (0, 100))
    axes.frame()
    for tick in range(0, 101, 25):
        axes.rule(y=tick)
        axes.label_y(tick, str(tick))
    styles = (("add", ""), ("other", "9 7"), ("multiply", "2 7"))
    entries = []
    for (name, values), (colour, dashes) in zip(reversed(curves.items()), styles, strict=True):
        axes.curve(range(1, num_epochs + 1), values, colour=colour, width=4, dashes=dashes)
        entries.append((name, colour, dashes))
    for epoch in range(1, num_epochs + 1):
        axes.label_x(epoch, str(epoch))
    canvas.words(384, 386, "epoch", size=19, colour="muted", anchor="middle")
    _legend(canvas, 418, entries)
    return canvas.svg()
