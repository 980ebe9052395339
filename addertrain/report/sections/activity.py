"""The activity of adder layers: the fraction of zero inputs, and of weights within the range of the
inputs.
"""

from collections.abc import Sequence

import numpy as np

from addertrain.data import DataError
from addertrain.report.document import Absent, Section, averaged, sources
from addertrain.report.observation import LayerInput
from addertrain.report.runs import Group, Run
from addertrain.report.study import Study
from addertrain.report.style import COLORS, Picture, legend_above, panels, picture
from addertrain.report.tables import Cell, Column, Spread, Table, file_name

_TITLE = "Zeros, and weights inside the activations' range"
_SMALL = 0.01
_COLUMNS = (
    Column("layer", "layer"),
    Column("zero_inputs", "activations that are 0", "%", ".1f"),
    Column("inside", "weights inside the range", "%", ".1f"),
    Column("below", "weights below it", "%", ".1f"),
    Column("above", "weights above it", "%", ".1f"),
    Column("zero_weights", "weights near 0", "%", ".2f"),
)


def activity(study: Study) -> Section | Absent:
    """A table and a figure for every recipe of adder layers with a checkpoint."""
    tables: list[Table] = []
    pictures: list[Picture] = []
    used: list[Run] = []
    num_images: set[int] = set()
    reason = "a run of an adder network that has saved a checkpoint"
    for group in study.groups:
        runs = group.with_weights
        if group.recipe.model.kind != "adder" or not runs:
            continue
        try:
            seen = [study.observation(run) for run in runs]
            layers = [layer.name for layer in study.operations(group.recipe).adder_layers]
        except DataError as error:
            reason = str(error)
            continue
        used += runs
        num_images |= {one.num_images for one in seen}
        rows = [_row(name, runs, [one.inputs[name] for one in seen]) for name in layers]
        key = file_name(f"activity_{group.label}")
        tables.append(Table(key, averaged(group, runs), _COLUMNS, tuple(rows)))
        pictures.append(_figure(group, rows, key))
    if not tables:
        return Absent(_TITLE, reason)
    images = " or ".join(map(str, sorted(num_images)))
    text = (
        f"Over the first {images} test images. Activations that are exactly 0 contribute nothing to an "
        "offset-free response. The range is that of the values that each channel of the layer's input "
        "takes; |x − w| is linear in x for a weight at or below it (behind a ReLU: w ≤ 0) or at or above "
        f"it, so only weights inside it bend the response. Near 0: |w| < {_SMALL:g} RMS(w)."
    )
    return Section("activity", _TITLE, text, sources(study.groups, only=used), tuple(tables), tuple(pictures))


def _row(name: str, runs: Sequence[Run], inputs: Sequence[LayerInput]) -> dict[str, Cell]:
    shares = [_shares(run, name, seen) for run, seen in zip(runs, inputs, strict=True)]
    row: dict[str, Cell] = {"layer": name}
    for key in ("inside", "below", "above", "zero_weights"):
        row[key] = Spread.of(100 * share[key] for share in shares)
    row["zero_inputs"] = Spread.of(100 * seen.zeros for seen in inputs)
    return row


def _shares(run: Run, name: str, seen: LayerInput) -> dict[str, float]:
    """Of the layer's weights [O, C, R, S] or [O, C], each against its channel's range."""
    weight = run.weights[f"{name}.weight"]
    w = weight.view(*weight.shape[:2], -1)
    below = w <= seen.lowest.view(1, -1, 1)
    above = w >= seen.highest.view(1, -1, 1)
    rms = w.square().mean().sqrt()
    return {
        "below": float(below.double().mean()),
        "above": float((above & ~below).double().mean()),
        "inside": float((~below & ~above).double().mean()),
        "zero_weights": float((w.abs() < _SMALL * rms).double().mean()),
    }


def _figure(group: Group, rows: Sequence[dict[str, Cell]], key: str) -> Picture:
    figure, ((panel,),) = panels(1, 1, panel_height=3.2)
    x = np.arange(len(rows))
    columns = {
        "zero_inputs": ("activations that are 0", COLORS[1]),
        "inside": ("weights inside the range", COLORS[0]),
    }
    for i, (column, (label, color)) in enumerate(columns.items()):
        cells = [row[column] for row in rows]
        means = [cell.mean for cell in cells if isinstance(cell, Spread)]
        errors = [cell.std or 0.0 for cell in cells if isinstance(cell, Spread)]
        panel.bar(x + 0.4 * (i - 0.5), means, 0.38, yerr=errors, color=color, label=label, capsize=2)
    names = [str(row["layer"]) for row in rows]
    panel.set_xticks(x, names, rotation=0 if len(names) <= 8 else 90)
    panel.grid(axis="x", visible=False)
    panel.set(ylabel="share, %", ylim=(0, 100), xlabel="layer")
    legend_above(figure, panel)
    return picture(
        figure, key, f"{group.label}; whiskers: standard deviation over n = {len(group.with_weights)}."
    )
