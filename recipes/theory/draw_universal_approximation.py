"""Draws docs/results/theory/: how large networks of docs/theory.md are, and how far from the function.

    python -m recipes.theory.draw_universal_approximation

needs `addertrain[report]` and a minute of one core, most of it for the networks that are trained.
"""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from addertrain.nn import AdderLinear, param_groups
from addertrain.optim import AdderSGD, cosine
from addertrain.report.style import COLORS, Axes, house_style, panels, picture
from recipes.theory.universal_approximation import (
    Function,
    Sum,
    deep_network,
    integer_slopes_1d,
    interpolation_1d,
    interpolation_2d,
    wide_network,
)

FOLDER = Path(__file__).parents[2] / "docs" / "results" / "theory"
LIPSCHITZ = 2 * math.pi
"""Of both functions below, for distances as sums over coordinates."""
NUM_POINTS = 4096
TRAINING_STEPS = 1500


def wave(x: float) -> float:
    """The function on a line."""
    return math.sin(2 * math.pi * x)


def waves(x: float, y: float) -> float:
    """The function on a square."""
    return math.sin(2 * math.pi * x) * math.cos(math.pi * y)


@dataclass(frozen=True)
class Row:
    """One network: its number of hidden units or layers, its largest error on a grid, its bound if any."""

    size: int
    error: float
    bound: float | None


def grid(dimension: int) -> Tensor:
    """Evenly spread points of [0, 1]^d, which no interpolation here meets, in float64."""
    count = round(NUM_POINTS ** (1 / dimension))
    axis = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return axis[:, None] if dimension == 1 else torch.cartesian_prod(axis, axis)


def values(f: Function, x: Tensor) -> Tensor:
    """f at every point."""
    return torch.tensor([f(*point) for point in x.tolist()], dtype=torch.float64)


@torch.no_grad()
def largest_error(network: nn.Module, f: Function, dimension: int) -> float:
    """max |network - f| over the grid."""
    x = grid(dimension)
    return (network(x)[:, 0] - values(f, x)).abs().max().item()


def constructed(
    f: Function,
    build: Callable[[Function, int], Sum],
    network: Callable[[Sum], nn.Sequential],
    bound: Callable[[int], float],
    sizes: Sequence[int],
) -> list[Row]:
    """A row for each n; the size is the width of one hidden layer, or the number of adder layers."""
    rows = []
    for n in sizes:
        total = build(f, n)
        net = network(total)
        layers = [layer for layer in net if isinstance(layer, AdderLinear)]
        size = layers[0].out_features if len(layers) == 2 else len(layers)
        rows.append(Row(size, largest_error(net, f, total.dimension), bound(n)))
    return rows


def trained(f: Function, dimension: int, width: int) -> Row:
    """One hidden layer whose filters AdderSGD finds, in float64, on points other than the grid's."""
    torch.manual_seed(0)
    network = nn.Sequential(
        AdderLinear(dimension, width, offset_free=True), nn.BatchNorm1d(width), nn.ReLU(),
        AdderLinear(width, 1, offset_free=True), nn.BatchNorm1d(1),
    ).double()  # fmt: skip
    x = torch.rand(1024, dimension, dtype=torch.float64)
    y = values(f, x)
    optimizer = AdderSGD(param_groups(network, weight_decay=0.0), lr=0.1, eta=0.02)
    for step in range(TRAINING_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * cosine(step, TRAINING_STEPS)
        optimizer.zero_grad()
        (network(x)[:, 0] - y).square().mean().backward()
        optimizer.step()
    for norm in network:
        if isinstance(norm, nn.BatchNorm1d):
            norm.momentum = None  # the mean over what comes: the statistics of all points
            norm.reset_running_stats()
    with torch.no_grad():
        network(x)
    return Row(width, largest_error(network.eval(), f, dimension), None)


def built() -> dict[str, list[Row]]:
    """The networks whose weights are formulas, by what the figure calls them."""
    lines, squares = (1, 2, 4, 8, 16, 32, 64, 128), (1, 2, 4, 8, 16, 32)
    half, whole = (lambda n: LIPSCHITZ / (2 * n)), (lambda n: (2 * LIPSCHITZ + 1) / (4 * n))
    return {
        "line, real heights": constructed(wave, interpolation_1d, wide_network, half, lines),
        "line, heights 1 and -1": constructed(wave, integer_slopes_1d, wide_network, whole, lines),
        "square": constructed(waves, interpolation_2d, wide_network, lambda n: LIPSCHITZ / n, squares),
        "line, width 6": constructed(wave, interpolation_1d, deep_network, half, lines),
        "square, width 8": constructed(
            waves, interpolation_2d, deep_network, lambda n: LIPSCHITZ / n, squares[:-1]
        ),
    }


def learned() -> dict[str, list[Row]]:
    """Networks of the shape of the wide ones, trained."""
    return {
        "line, trained": [trained(wave, 1, width) for width in (4, 8, 16, 32, 64, 128)],
        "square, trained": [trained(waves, 2, width) for width in (16, 32, 64, 128, 256, 512)],
    }


def draw_errors(rows: dict[str, list[Row]]) -> bytes:
    """Error against size beside the bounds, three panels."""
    figure, ((line, square, deep),) = panels(1, 3, panel_height=4.2, sharey=True)
    real, signs, by_training = COLORS[0], COLORS[2], COLORS[1]
    _curve(line, "real heights", rows["line, real heights"], real)
    _curve(line, "heights 1 and −1", rows["line, heights 1 and -1"], signs)
    _curve(line, "trained", rows["line, trained"], by_training)
    _curve(square, "real heights", rows["square"], real)
    _curve(square, "trained", rows["square, trained"], by_training)
    _curve(deep, "[0, 1], width 6", rows["line, width 6"], real)
    _curve(deep, "[0, 1]², width 8", rows["square, width 8"], COLORS[3])
    line.set(title="[0, 1], one hidden layer", xlabel="hidden units", ylabel="largest error")
    square.set(title="[0, 1]², one hidden layer", xlabel="hidden units")
    deep.set(title="bounded width", xlabel="adder layers")
    for axes in (line, square, deep):
        axes.set(xscale="log", yscale="log")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17))
    return picture(figure, "errors", "").png


def _curve(axes: Axes, label: str, rows: Sequence[Row], color: str) -> None:
    sizes = [row.size for row in rows]
    axes.plot(sizes, [row.error for row in rows], "o-", color=color, markersize=3.5, label=label)
    if rows[0].bound is not None:
        axes.plot(sizes, [row.bound for row in rows], ":", color=color, label=f"{label}: bound")


def draw_functions() -> bytes:
    """What a small network computes: two on a line, one on a square."""
    figure, ((line, square, difference),) = panels(1, 3, panel_height=3.2)
    x = grid(1)
    line.plot(x, values(wave, x), color="#999999", linewidth=3, label="f")
    for build, dashes, color, label in (
        (interpolation_1d, "-", COLORS[0], "real heights"),
        (integer_slopes_1d, "--", COLORS[1], "heights 1 and −1"),
    ):
        with torch.no_grad():
            line.plot(x, wide_network(build(wave, 5))(x), dashes, color=color, label=label, linewidth=1.2)
    line.set(title="[0, 1], n = 5")
    line.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1))
    count = round(NUM_POINTS**0.5)
    points = grid(2)
    with torch.no_grad():
        found = wide_network(interpolation_2d(waves, 8))(points)[:, 0]
    for axes, shown, title in (
        (square, found, "[0, 1]², n = 8"),
        (difference, found - values(waves, points), "its difference from f"),
    ):
        image = axes.imshow(shown.view(count, count).T, origin="lower", extent=(0, 1, 0, 1), cmap="PuOr")
        image.set_clim(-shown.abs().max(), shown.abs().max())
        figure.colorbar(image, ax=axes, location="bottom", shrink=0.9)
        axes.set(title=title)
        axes.grid(visible=False)
    return picture(figure, "functions", "").png


def main() -> None:
    """Writes the figures, and the numbers as a table."""
    torch.set_num_threads(1)
    rows = built() | learned()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "errors.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["network", "size", "error", "bound"])
        table.writerows([name, each.size, each.error, each.bound] for name in rows for each in rows[name])
    with house_style():
        (FOLDER / "errors.png").write_bytes(draw_errors(rows))
        (FOLDER / "functions.png").write_bytes(draw_functions())


if __name__ == "__main__":
    main()
