"""Figure 4 of the paper: how weights are distributed, adder layers like Laplace, convolutions like Gauss."""

import torch
from torch import Tensor

from addertrain.data import DataError
from addertrain.report.distribution_fits import fit_gauss, fit_laplace, gauss_density, laplace_density
from addertrain.report.document import Absent, Section, averaged, sources
from addertrain.report.runs import Group, Run
from addertrain.report.study import Study
from addertrain.report.style import (
    COLORS,
    KIND_NAMES,
    Axes,
    Picture,
    decades_axis,
    legend_above,
    panels,
    picture,
)
from addertrain.report.tables import Cell, Column, Spread, Table, file_name

_TITLE = "Distribution of the weights (Figure 4 of the paper)"
_MAX_PANELS = 6
_COLUMNS = (
    Column("layer", "layer"),
    Column("kind", "layers"),
    Column("num_weights", "weights", "", "si"),
    Column("rms", "RMS(w)", "", "#.3g"),
    Column("gauss", "log-likelihood Gauss", "nats a weight", ".3f"),
    Column("laplace", "log-likelihood Laplace", "nats a weight", ".3f"),
    Column("better", "fits better"),
)


def histograms(study: Study) -> Section | Absent:
    """A table of all layers and a figure of some, for every recipe with weights."""
    tables: list[Table] = []
    pictures: list[Picture] = []
    used: list[Run] = []
    for group in study.groups:
        runs = group.with_weights
        try:
            layers = [(layer.name, layer.kind) for layer in study.operations(group.recipe).layers]
        except DataError:
            continue
        if not runs or group.recipe.model.kind == "binary":
            continue
        used += runs
        rows = tuple(_row(name, kind, runs) for name, kind in layers)
        key = file_name(group.label)
        tables.append(Table(f"weights_{key}", averaged(group, runs), _COLUMNS, rows))
        pictures.append(_figure(group, runs[0], [name for name, _ in layers], f"weights_{key}"))
    if not tables:
        return Absent(_TITLE, "a run of an adder or convolutional network that has saved a checkpoint")
    text = (
        "The weights of each layer at the end, with the normal and the Laplace distribution of the highest "
        "likelihood. The log-likelihood is of one weight on average; the higher one fits better. The scale "
        "of the density is logarithmic, so that a Laplace distribution is a tent and a normal one a "
        "parabola; a bar stands where there is a weight."
    )
    return Section("weights", _TITLE, text, sources(study.groups, only=used), tuple(tables), tuple(pictures))


def _row(name: str, kind: str, runs: tuple[Run, ...]) -> dict[str, Cell]:
    weights = [run.weights[f"{name}.weight"] for run in runs]
    gauss = Spread.of(fit_gauss(weight).log_likelihood for weight in weights)
    laplace = Spread.of(fit_laplace(weight).log_likelihood for weight in weights)
    assert gauss is not None
    assert laplace is not None
    return {
        "layer": name,
        "kind": KIND_NAMES[kind],
        "num_weights": weights[0].numel(),
        "rms": Spread.of(float(weight.double().square().mean().sqrt()) for weight in weights),
        "gauss": gauss,
        "laplace": laplace,
        "better": "Laplace" if laplace.mean > gauss.mean else "Gauss",
    }


def _figure(group: Group, run: Run, names: list[str], key: str) -> Picture:
    chosen = _spread_out(names)
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, axes = panels(rows, columns, panel_height=2.5)
    flat = [panel for row in axes for panel in row]
    for panel, name in zip(flat, chosen, strict=False):
        _draw(panel, run.weights[f"{name}.weight"])
        panel.set_title(name)
    for panel in flat[len(chosen) :]:
        panel.set_axis_off()
    for row in axes:
        row[0].set_ylabel("density")
    for panel in flat[: len(chosen)]:
        panel.set_xlabel("weight")
    legend_above(figure, flat[0], columns=3)
    some = "" if len(chosen) == len(names) else f" ({len(chosen)} of {len(names)} layers)"
    return picture(figure, key, f"{group.label}, seed {run.seed}{some}.")


def _draw(panel: Axes, weight: Tensor) -> None:
    w = weight.double().flatten()
    heights, edges = torch.histogram(w, bins=max(10, min(80, int(2 * w.numel() ** 0.4))), density=True)
    panel.stairs(heights.numpy(), edges.numpy(), fill=True, color="#bbbbbb", label="weights")
    x = torch.linspace(float(edges[0]), float(edges[-1]), 400, dtype=torch.float64)
    panel.plot(x.numpy(), gauss_density(x, fit_gauss(w)).numpy(), "--", color=COLORS[1], label="Gauss")
    panel.plot(x.numpy(), laplace_density(x, fit_laplace(w)).numpy(), color=COLORS[0], label="Laplace")
    lowest = float(heights[heights > 0].min())
    decades_axis(panel)
    panel.set_ylim(lowest / 3, 3 * float(heights.max()))


def _spread_out(names: list[str]) -> list[str]:
    """At most _MAX_PANELS layers, the first, the last and some between."""
    if len(names) <= _MAX_PANELS:
        return names
    return [names[round(i * (len(names) - 1) / (_MAX_PANELS - 1))] for i in range(_MAX_PANELS)]
