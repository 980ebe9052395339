"""The networks of docs/theory.md keep the bounds that it derives, and are made of adder layers alone."""

import csv
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from addertrain.nn import AdderLinear
from recipes.theory.universal_approximation import (
    Function,
    Sum,
    deep_network,
    integer_slopes_1d,
    interpolation_1d,
    interpolation_2d,
    wide_network,
)
from tests.source_tree import ROOT

NUM_POINTS = 2000
ROUNDING = 1e-11
"""250 layers at most, with values up to 1e3 and sums of 10 terms: 250 * 10 * 1e3 * 1.1e-16 = 3e-10 at worst,
and roundings rarely point one way."""


def _zigzag(x: float) -> float:
    """Slopes of 1 and -1 that change at places which no grid of the tests meets."""
    return abs((x * 7 / math.e) % 1.0 - 0.5) * math.e / 7


# A function on [0, 1] or [0, 1]^2, and a constant L: |f(x) - f(y)| <= L ||x - y||_1.
ON_A_LINE: dict[str, tuple[Function, float]] = {
    "wave": (lambda x: math.sin(2 * math.pi * x), 2 * math.pi),
    "kink": (lambda x: abs(x - 1 / math.pi) - 0.2, 1.0),
    "zigzag": (_zigzag, 1.0),
    "line": (lambda x: 0.3 - 0.7 * x, 0.7),
}
ON_A_SQUARE: dict[str, tuple[Function, float]] = {
    "waves": (lambda x, y: math.sin(2 * math.pi * x) * math.cos(math.pi * y), 2 * math.pi),
    "ridge": (lambda x, y: abs(x - y), 1.0),
    "cone": (lambda x, y: math.hypot(x - 0.3, y - 0.6), 1.0),
}
on_a_line = pytest.mark.parametrize("name", ON_A_LINE)
on_a_square = pytest.mark.parametrize("name", ON_A_SQUARE)
networks = pytest.mark.parametrize("network", [wide_network, deep_network])


def _largest_error(network: nn.Sequential, f: Function, dimension: int) -> float:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(NUM_POINTS, dimension, dtype=torch.float64, generator=generator)
    x[:2] = torch.tensor([[0.0], [1.0]])
    expected = torch.tensor([f(*point) for point in x.tolist()], dtype=torch.float64)
    with torch.no_grad():
        return (network(x)[:, 0] - expected).abs().max().item()


def _widths(network: nn.Sequential) -> list[int]:
    return [layer.out_features for layer in network if isinstance(layer, AdderLinear)]


@on_a_line
@networks
@pytest.mark.parametrize("n", [1, 7, 64])
def test_a_line_is_approximated_within_the_bound(
    name: str, network: Callable[[Sum], nn.Sequential], n: int
) -> None:
    f, lipschitz = ON_A_LINE[name]
    total = interpolation_1d(f, n)
    assert len(total.pyramids) <= n
    assert _largest_error(network(total), f, 1) <= lipschitz / (2 * n) + ROUNDING


@on_a_line
@pytest.mark.parametrize("n", [1, 7, 64])
def test_whole_slopes_need_no_multiplication_and_keep_their_bound(name: str, n: int) -> None:
    f, lipschitz = ON_A_LINE[name]
    total = integer_slopes_1d(f, n)
    network = wide_network(total)
    most = math.ceil(lipschitz)
    assert [type(layer) for layer in network] == [AdderLinear, nn.ReLU, AdderLinear]
    assert len(total.pyramids) <= (2 * most + 1) * n + most
    assert _largest_error(network, f, 1) <= (2 * lipschitz + 1) / (4 * n) + ROUNDING


@on_a_square
@networks
@pytest.mark.parametrize("n", [1, 5, 8])
def test_a_square_is_approximated_within_the_bound(
    name: str, network: Callable[[Sum], nn.Sequential], n: int
) -> None:
    f, lipschitz = ON_A_SQUARE[name]
    total = interpolation_2d(f, n)
    assert len(total.pyramids) <= 2 * (n + 3) ** 2
    assert _largest_error(network(total), f, 2) <= lipschitz / n + ROUNDING


@on_a_square
def test_deep_networks_are_no_wider_than_the_theorem_says_and_equal_the_wide_ones(name: str) -> None:
    total = interpolation_2d(ON_A_SQUARE[name][0], 5)
    deep, wide = deep_network(total), wide_network(total)
    assert max(_widths(deep)) <= 2 * (2 + 2)
    assert len(_widths(deep)) == len(total.pyramids) + 3
    assert _widths(wide) == [len(total.pyramids), 1]
    x = torch.rand(NUM_POINTS, 2, dtype=torch.float64)
    with torch.no_grad():
        assert (deep(x) - wide(x)).abs().max() < ROUNDING


def test_values_at_the_corners_of_the_squares_are_the_functions() -> None:
    f, n = ON_A_SQUARE["waves"][0], 6
    network = wide_network(interpolation_2d(f, n))
    corners = torch.cartesian_prod(*[torch.arange(n + 1, dtype=torch.float64) / n] * 2)
    expected = torch.tensor([f(*point) for point in corners.tolist()], dtype=torch.float64)
    with torch.no_grad():
        assert (network(corners)[:, 0] - expected).abs().max() < ROUNDING


@pytest.mark.parametrize("dimension", [1, 2])
def test_errors_fall_with_the_size_as_the_bound_does(dimension: int) -> None:
    """From n = 4 to 16 the bound falls fourfold, and what is smooth does even better."""
    f = ON_A_LINE["wave"][0] if dimension == 1 else ON_A_SQUARE["ridge"][0]
    build = interpolation_1d if dimension == 1 else interpolation_2d
    coarse, fine = (_largest_error(wide_network(build(f, n)), f, dimension) for n in (4, 16))
    assert 2.5 < coarse / fine < 20


def test_the_published_numbers_are_those_of_the_networks_and_keep_their_bounds() -> None:
    """docs/results/theory/errors.csv, of all networks that are not trained."""
    pytest.importorskip("matplotlib")
    from recipes.theory.draw_universal_approximation import built

    with (ROOT / "docs" / "results" / "theory" / "errors.csv").open(encoding="utf-8", newline="") as file:
        published = [row for row in csv.DictReader(file) if not row["network"].endswith("trained")]
    found = [(name, row) for name, rows in built().items() for row in rows]

    for theirs, (name, row) in zip(published, found, strict=True):
        assert (theirs["network"], int(theirs["size"])) == (name, row.size)
        assert row.error == pytest.approx(float(theirs["error"]), abs=ROUNDING)
        assert row.bound == pytest.approx(float(theirs["bound"]))
        assert row.error <= row.bound


def test_what_the_page_says_of_trained_networks_stands_in_the_table() -> None:
    page = " ".join((ROOT / "docs" / "theory.md").read_text(encoding="utf-8").split())
    with (ROOT / "docs" / "results" / "theory" / "errors.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for network, place in (("line, trained", "on the line"), ("square, trained", "on the square")):
        errors = [float(row["error"]) for row in rows if row["network"] == network]
        assert f"{min(errors):.2f} to {max(errors):.2f} {place}" in page
    (line,) = (row for row in rows if (row["network"], row["size"]) == ("line, trained", "32"))
    (formula,) = (row for row in rows if (row["network"], row["size"]) == ("line, real heights", "32"))
    assert f"32 units and an error of {float(formula['error']):.3f} exists" in page
    assert f"this training finds one with {float(line['error']):.2f}." in page
