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
    """For each network and data set: the schemes of its adder networks, and its kinds beside each other."""
    pictures: list[Picture] = []
    tables: list[Table] = []
    logged = [group for group in study.groups if _accuracy(group) is not None]
    for model, data in dict.fromkeys((g.recipe.model.name, g.recipe.data.name) for g in logged):
        groups = [g for g in logged if (g.recipe.model.name, g.recipe.data.name) == (model, data)]
        key = file_name(f"{model}_{data}")
        schemes = _schemes(groups)
        if len(schemes) > 1:
            caption = f"{model} on {data}: optimisation schemes of the adder network."
            pictures.append(_figure(schemes, f"schemes_{key}", caption))
        if len({group.recipe.model.kind for group in groups}) > 1 or len(schemes) < 2:
            caption = f"{model} on {data}: kinds of layers."
            pictures.append(_figure(_kinds(groups), f"kinds_{key}", caption))
        rows = tuple(_row(line) for line in (*schemes, *_kinds(groups, without=schemes)))
        tables.append(Table(f"curves_{key}", f"{model} on {data}, at the end of each curve.", _COLUMNS, rows))
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


def _schemes(groups: Sequence[Group]) -> list[_Line]:
    """The adder networks, one of each scheme: that with the most seeds."""
    best: dict[tuple[str, str], Group] = {}
    for group in groups:
        recipe = group.recipe
        key = (recipe.optim.alr, recipe.model.filter_gradient)
        if recipe.model.kind == "adder" and (key not in best or len(group.whole) > len(best[key].whole)):
            best[key] = group
    lines = []
    for (alr, gradient), group in sorted(best.items(), key=lambda item: list(_RATES).index(item[0][0])):
        rate, color = _RATES[alr]
        if alr == "increased":
            rate += f" × {group.recipe.optim.increase:g}"
        word, dash = _GRADIENTS[gradient]
        lines.append(_Line(group, f"{rate}, {word}", color, dash))
    return lines


def _kinds(groups: Sequence[Group], *, without: Sequence[_Line] = ()) -> list[_Line]:
    """Adder, convolution, binary; recipes of one kind differ in their dashes and carry their names.

    Ablations of the adder network are the other figure's.
    """
    lines: list[_Line] = []
    drawn = [line.group for line in without]
    for kind, name in KIND_NAMES.items():
        own = [
            group
            for group in groups
            if group.recipe.model.kind == kind and group not in drawn and (without or _is_default(group))
        ]
        for i, group in enumerate(own):
            label = name if len(own) == 1 else f"{name}: {group.label}"
            lines.append(_Line(group, label, KIND_COLORS[kind], DASHES[i % len(DASHES)]))
    return lines


def _is_default(group: Group) -> bool:
    recipe = group.recipe
    return recipe.optim.alr == "global" and recipe.model.filter_gradient == "full"


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
    right.set(ylabel="training loss, cross-entropy in nats", yscale="log")
    for panel in (left, right):
        epoch_axis(panel)
    legend_above(figure, left, columns=2)
    return picture(figure, key, caption)


def _standing(group: Group) -> str:
    return f"n = {len(group.whole)}" + ("" if group.finished else ", unfinished")


def _as_error(line: Trajectory) -> Trajectory:
    return replace(line, mean=100 - line.mean, lowest=100 - line.highest, highest=100 - line.lowest)


def _row(line: _Line) -> dict[str, Cell]:
    group = line.group
    ends = {"top1": "accuracy/val_top1", "loss": "loss/train_epoch"}
    finals = {
        key: Spread.of(run.curves[tag].values[-1] for run in group.whole if tag in run.curves)
        for key, tag in ends.items()
    }
    return {
        "scheme": line.label,
        "recipe": group.label,
        "epochs": min(run.epochs for run in group.whole),
        "n": len(group.whole),
        **finals,
    }
