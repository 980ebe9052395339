"""Adder layers during training: α_l, and RMS(w) with the value at which decay and steps balance."""

import numpy as np

from addertrain.optim import equilibrium_rms
from addertrain.report.document import Absent, Section, sources
from addertrain.report.runs import Group
from addertrain.report.study import Study
from addertrain.report.style import Axes, Picture, epoch_axis, layer_colors, layer_legend, panels, picture
from addertrain.report.tables import Cell, Column, Table, file_name
from addertrain.report.trajectories import by_epoch, draw, trajectory

_TITLE = "Adder layers while they train"
_RATE, _NORM, _RMS, _LR = "alr_alpha/", "grad_norm/", "weight_rms/", "schedule/lr"


def dynamics(study: Study) -> Section | Absent:
    """α_l and RMS(w) of every adder layer over time, for each recipe."""
    groups = [group for group in study.groups if trajectory(group.whole, _LR) and _layers(group, _RMS)]
    if not groups:
        return Absent(_TITLE, "a run of an adder network that has trained for an epoch or more")
    text = (
        "Left: α_l = η·√k/‖g_l‖₂ (Eq. 13), the factor on each layer's gradient, or that gradient's norm "
        "where the recipe does not use ALR; medians over each epoch. Right: the root mean square of each "
        "layer's weights, and dotted what it would tend to if steps were uncorrelated, RMS(w) = "
        "η·√(γ/(2λ(1−μ))) with rate γ, weight decay λ and momentum μ. The weights can follow it only while "
        "γ is large: the time constant (1−μ)/(2γλ), in steps, grows beyond the schedule as γ falls. Lines "
        "are means over the seeds, bands reach from the lowest to the highest seed."
    )
    tables = tuple(_table(group) for group in groups)
    pictures = tuple(_figure(group) for group in groups)
    used = [run for group in groups for run in group.whole]
    return Section(
        "dynamics",
        _TITLE,
        text,
        sources(groups, only=used),
        tables,
        pictures,
    )


def _layers(group: Group, prefix: str) -> list[str]:
    """The adder layers that were recorded, in the order of the network."""
    names = dict.fromkeys(tag for run in group.whole for tag in run.curves if tag.startswith(prefix))
    return [tag.removeprefix(prefix) for tag in names]


def _figure(group: Group) -> Picture:
    names = _layers(group, _RMS)
    kind, label = (_RATE, "α, per layer") if _has_alr(group) else (_NORM, "‖g‖₂, per layer")
    figure, ((left, right),) = panels(1, 2, panel_height=3.9)
    for name, color in zip(names, layer_colors(names), strict=True):
        if (rate := trajectory(group.whole, kind + name)) is not None:
            draw(left, by_epoch(rate), color=color, label=name)
        if (rms := trajectory(group.whole, _RMS + name)) is not None:
            draw(right, rms, color=color, label=name)
    left.set(ylabel=label, yscale="log")
    _draw_equilibrium(right, group)
    right.set(ylabel="RMS(w), per layer")
    right.set_ylim(bottom=0)
    for panel in (left, right):
        epoch_axis(panel)
    layer_legend(figure, [right, left], names)
    key = file_name(f"dynamics_{group.label}")
    return picture(figure, key, f"{group.label}, n = {len(group.whole)}.")


def _draw_equilibrium(axes: Axes, group: Group) -> None:
    line = trajectory(group.whole, _LR)
    if line is None or not _has_balance(group):
        return
    balance = np.array([_equilibrium(group, float(lr)) for lr in line.mean])
    axes.plot(line.epochs, balance, ":", color="black", linewidth=1.8, label="balance")


def _has_balance(group: Group) -> bool:
    """Whether steps have a known length and decay is there to meet them."""
    optim = group.recipe.optim
    return _has_alr(group) and optim.weight_decay > 0 and optim.name == "sgd"


def _has_alr(group: Group) -> bool:
    return group.recipe.optim.alr in ("global", "local")


def _equilibrium(group: Group, lr: float) -> float:
    optim = group.recipe.optim
    return equilibrium_rms(lr=lr, eta=optim.eta, weight_decay=optim.weight_decay, momentum=optim.momentum)


def _table(group: Group) -> Table:
    """At three moments: the layers' RMS(w), and the balance."""
    line = trajectory(group.whole, _LR)
    assert line is not None
    marks = [len(line.epochs) * part // 10 for part in (1, 3, 5)] + [len(line.epochs) - 1]
    columns = [Column("layer", "RMS(w)")]
    columns += [Column(f"at_{i}", f"epoch {line.epochs[i]:.3g}", "", "#.3g") for i in dict.fromkeys(marks)]
    rows: list[dict[str, Cell]] = []
    for name in _layers(group, _RMS):
        row: dict[str, Cell] = {"layer": name}
        if (rms := trajectory(group.whole, _RMS + name)) is not None:
            at = {round(float(epoch), 9): i for i, epoch in enumerate(rms.epochs)}
            for i in marks:
                if (place := at.get(round(float(line.epochs[i]), 9))) is not None:
                    row[f"at_{i}"] = float(rms.mean[place])
        rows.append(row)
    if _has_balance(group):
        balance: dict[str, Cell] = {f"at_{i}": _equilibrium(group, float(line.mean[i])) for i in marks}
        rows.append({"layer": "balance, by the formula", **balance})
    key = file_name(f"dynamics_{group.label}")
    caption = f"{group.label}: mean over n = {len(group.whole)}."
    return Table(key, caption, tuple(columns), tuple(rows))
