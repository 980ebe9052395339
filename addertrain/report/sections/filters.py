"""Figure 2 of the paper: the filters of the first layer, which match patches in both kinds of network."""

import math

import torch
from torch import Tensor

from addertrain.data import DataError
from addertrain.report.document import Absent, Section, sources
from addertrain.report.runs import Group, Run
from addertrain.report.study import Study
from addertrain.report.style import KIND_NAMES, Picture, panels, picture
from addertrain.report.tables import file_name

_TITLE = "Filters of the first layer (Figure 2 of the paper)"
_MAX_FILTERS = 64


def filters(study: Study) -> Section | Absent:
    """The first seed of every recipe that has weights; ablations of a network only if there is nothing
    else.
    """
    shown: list[tuple[Group, Run, Tensor, str]] = []
    for group in study.groups:
        if not group.with_weights or group.recipe.model.kind == "binary":
            continue
        try:
            first = study.operations(group.recipe).layers[0]
        except DataError:
            continue
        run = group.with_weights[0]
        shown.append((group, run, run.weights[f"{first.name}.weight"], KIND_NAMES[first.kind]))
    if not shown:
        return Absent(_TITLE, "a run of an adder or convolutional network that has saved a checkpoint")
    pictures = tuple(_figure(*one) for one in shown)
    text = (
        "Every filter on its own scale, from its lowest (black) to its highest value (white); where the "
        "layer reads red, green and blue, as colours. In CIFAR's and ImageNet's adder networks the first "
        "layer is a convolution."
    )
    used = [run for _, run, _, _ in shown]
    return Section("filters", _TITLE, text, sources([one[0] for one in shown], only=used), (), pictures)


def _figure(group: Group, run: Run, weight: Tensor, kind: str) -> Picture:
    tiles = [_tile(one) for one in weight[:_MAX_FILTERS]]
    columns = min(16, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    figure, axes = panels(rows, columns, panel_height=min(1.3, 8.0 / columns))
    flat = [panel for row in axes for panel in row]
    for panel in flat:
        panel.set_axis_off()
    for panel, tile in zip(flat, tiles, strict=False):
        panel.imshow(tile.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    side = "×".join(map(str, weight.shape[2:]))
    count = f"{len(tiles)} of {len(weight)} filters" if len(tiles) < len(weight) else f"{len(tiles)} filters"
    caption = f"{group.label}, seed {run.seed}: {count} of {side} {kind} weights."
    return picture(figure, file_name(f"filters_{group.label}"), caption)


def _tile(filter_crs: Tensor) -> Tensor:
    """(R, S) or (R, S, 3) in 0 .. 1."""
    lowest, highest = filter_crs.min(), filter_crs.max()
    scaled = (filter_crs - lowest) / (highest - lowest).clamp_min(1e-12)
    if filter_crs.shape[0] == 3:
        return scaled.permute(1, 2, 0)
    return torch.as_tensor(scaled[0] if filter_crs.shape[0] == 1 else scaled.mean(0))
