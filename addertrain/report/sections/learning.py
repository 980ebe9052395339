"""Figure 3 of the paper: accuracy and loss by epoch, of optimisation schemes and of kinds of network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from addertrain.report.document import Absent, Section, sources
from addertrain.report.runs import Group
from addertrain.report.study import Study
from addertrain.report.style import (
    COLORS,
    DASHES,
    KIND_COLORS,
    KIND_NAMES,
    Picture,
    accuracy_axis,
    epoch_axis,
    legend_above,
    loss_axis,
    panels,
    picture,
)
from addertrain.report.tables import Cell, Column, Spread, Table, file_name
from addertrain.report.trajectories import Trajectory, draw, trajectory

_TITLE = "Learning curves (Figure 3 of the paper)"
_RATES = {
    "global": ("ALR", COLORS[0]),
    "increased": ("increased rate", COLORS[4]),
    "off": ("γ alone", COLORS[1]),
    "local": ("ALR before reduction", COLORS[3]),
}
_GRADIENTS = {"full": ("full-precision gradient", DASHES[0]), "sign": ("sign gradient", DASHES[1])}
_COLUMNS = (
    Column("scheme", "scheme"),
    Column("recipe", "recipe"),
    Column("epochs", "epochs", "", "d"),
    Column("top1", "top-1", "%", ".2f"),
    Column("loss", "training loss", "", ".4f"),
    Column("n", "n", "", "d"),
)


@dataclass(frozen=True)
class _Line:
    """A group in a figure."""

    group: Group
    label: str
    color: str
    dash: str


def learning(study: Study) -> Section | Absent:
    """For each network and data set: the schemes of its adder networks, and its kinds in comparison."""
    pictures: list[Picture] = []
    tables: list[Table] = []
    logged = [group for group in study.groups if _accuracy(group) is not None]
    for model, data in dict.fromkeys((g.recipe.model.name, g.recipe.data.name) for g in logged):
        groups = [g for g in logged if (g.recipe.model.name, g.recipe.data.name) == (model, data)]
        of, key = f"{model} on {data}", file_name(f"{model}_{data}")
        schemes, kinds, variants = _schemes(groups), _kinds(groups), _variants(groups)
        if len(schemes) > 1:
            caption = f"{of}: optimisation schemes of the adder network."
            pictures.append(_figure(schemes, f"schemes_{key}", caption))
        if len(kinds) > 1 or len(schemes) < 2:
            pictures.append(_figure(kinds, f"kinds_{key}", f"{of}: kinds of layers."))
        if variants:
            pictures.append(_figure(variants, f"variants_{key}", f"{of}: variants of one kind and scheme."))
        rows = tuple(_row(group) for group in groups)
        tables.append(Table(f"curves_{key}", f"{of}, at the end of each curve.", _COLUMNS, rows))
    if not logged:
        return Absent(_TITLE, "no run has logged an epoch yet")
    text = (
        "Accuracy on the test images after every epoch, BatchNorm's statistics recalibrated, on a scale "
        "that is logarithmic in the error; and the mean training loss of every epoch, logarithmic. Lines "
        "are means over the seeds, bands reach from the lowest to the highest seed."
    )
    used = [run for group in logged for run in group.whole]
    return Section(
        "curves",
        _TITLE,
        text,
        sources(logged, only=used),
        tuple(tables),
        tuple(pictures),
    )


def _accuracy(group: Group) -> Trajectory | None:
    return trajectory(group.whole, "accuracy/val_top1")


def _loss(group: Group) -> Trajectory | None:
    return trajectory(group.whole, "loss/train_epoch")


def _scheme(group: Group) -> tuple[str, str, str]:
    """Kind of layers, rate, filter gradient; the last two for adder layers only."""
    model = group.recipe.model
    if model.kind != "adder":
        return model.kind, "", ""
    return model.kind, group.recipe.optim.alr, model.filter_gradient


def _scheme_name(group: Group) -> str:
    kind, alr, gradient = _scheme(group)
    if kind != "adder":
        return KIND_NAMES[kind]
    factor = f" × {group.recipe.optim.increase:g}" if alr == "increased" else ""
    return f"{_RATES[alr][0]}{factor}, {_GRADIENTS[gradient][0]}"


def _by_scheme(groups: Sequence[Group]) -> dict[tuple[str, str, str], list[Group]]:
    """The groups of each scheme, the one with the most seeds and the shortest name first."""
    found: dict[tuple[str, str, str], list[Group]] = {}
    for group in sorted(groups, key=lambda group: (-len(group.whole), len(group.label))):
        found.setdefault(_scheme(group), []).append(group)
    return found


def _schemes(groups: Sequence[Group]) -> list[_Line]:
    """One adder network of each scheme."""
    firsts = {scheme: own[0] for scheme, own in _by_scheme(groups).items() if scheme[0] == "adder"}
    return [
        _Line(firsts["adder", alr, gradient], _scheme_name(firsts["adder", alr, gradient]), color, dash)
        for alr, (_, color) in _RATES.items()
        for gradient, (_, dash) in _GRADIENTS.items()
        if ("adder", alr, gradient) in firsts
    ]


def _kinds(groups: Sequence[Group]) -> list[_Line]:
    """One network of each kind, the adder network by the paper's scheme if there is one."""
    found = _by_scheme(groups)
    usual = {"adder": ("adder", "global", "full")}
    lines = []
    for kind, name in KIND_NAMES.items():
        schemes = sorted(scheme for scheme in found if scheme[0] == kind)
        if schemes:
            scheme = usual[kind] if usual.get(kind) in schemes else schemes[0]
            lines.append(_Line(found[scheme][0], name, KIND_COLORS[kind], DASHES[0]))
    return lines


def _variants(groups: Sequence[Group]) -> list[_Line]:
    """The groups that share kind and scheme with another group."""
    several = [group for own in _by_scheme(groups).values() if len(own) > 1 for group in own]
    return [
        _Line(group, group.label, COLORS[i % len(COLORS)], DASHES[i // len(COLORS) % len(DASHES)])
        for i, group in enumerate(several)
    ]


def _figure(lines: Sequence[_Line], key: str, caption: str) -> Picture:
    figure, ((left, right),) = panels(1, 2, panel_height=3.9)
    shown: list[float] = []
    for line in lines:
        style = {
            "color": line.color,
            "dash": line.dash,
            "label": f"{line.label} ({_standing(line.group)})",
        }
        if (accuracy := _accuracy(line.group)) is not None:
            shown += [*accuracy.lowest, *accuracy.highest]
            draw(left, _as_error(accuracy), **style)
        if (loss := _loss(line.group)) is not None:
            draw(right, loss, **style)
    accuracy_axis(left, min(shown), max(shown))
    left.set_ylabel("test accuracy, top-1, %")
    loss_axis(right)
    right.set_ylabel("training loss, cross-entropy in nats")
    for panel in (left, right):
        epoch_axis(panel)
    legend_above(figure, left, columns=2)
    return picture(figure, key, caption)


def _standing(group: Group) -> str:
    return f"n = {len(group.whole)}" + ("" if group.finished else ", unfinished")


def _as_error(line: Trajectory) -> Trajectory:
    return replace(line, mean=100 - line.mean, lowest=100 - line.highest, highest=100 - line.lowest)


def _row(group: Group) -> dict[str, Cell]:
    ends = {"top1": "accuracy/val_top1", "loss": "loss/train_epoch"}
    finals = {
        key: Spread.of(run.curves[tag].values[-1] for run in group.whole if tag in run.curves)
        for key, tag in ends.items()
    }
    return {
        "scheme": _scheme_name(group),
        "recipe": group.label,
        "epochs": min(run.epochs for run in group.whole),
        "n": len(group.whole),
        **finals,
    }
