"""Tables 2 and 3 of the paper: accuracy and operation counts, and the cost of the operations."""

from collections.abc import Iterator

from addertrain.data import DataError
from addertrain.models import Kind
from addertrain.models.operations import OperationCount, energy_joules, via_nano_cycles
from addertrain.report.document import Absent, Section, Source, command_of, sources
from addertrain.report.runs import Group
from addertrain.report.study import Study
from addertrain.report.style import KIND_NAMES
from addertrain.report.tables import Cell, Column, Spread, Table

_KINDS: tuple[Kind, ...] = ("adder", "conv", "binary")
_OPERATIONS = (
    Column("multiplications", "multiplications", "", "si"),
    Column("additions", "additions", "", "si"),
    Column("xnors", "XNORs", "", "si"),
)
_ACCURACY = (
    Column("network", "network"),
    Column("kind", "layers"),
    Column("recipe", "recipe"),
    *_OPERATIONS,
    Column("top1", "top-1", "%", ".2f"),
    Column("top5", "top-5", "%", ".2f"),
    Column("expected", "expected top-1", "%", ".2f"),
    Column("n", "n", "", "d"),
    Column("epochs", "epochs", "", "d"),
    Column("command", "command", on_page=False),
)
_COSTS = (
    Column("network", "network"),
    Column("kind", "layers"),
    *_OPERATIONS,
    Column("cycles", "VIA Nano 2000", "cycles", "si"),
    Column("relative_cycles", "of the convolution's", "%", ".1f"),
    Column("energy", "energy at 45 nm", "µJ", ".4g"),
    Column("relative_energy", "of the convolution's", "%", ".1f"),
)


def accuracy(study: Study) -> Section | Absent:
    """A table for each data set."""
    title = "Accuracy and operations (Tables 2 and 3 of the paper)"
    finished = [group for group in study.groups if group.finished]
    if not finished:
        return Absent(title, "no run has finished: fit writes summary.json at its end")
    tables = []
    for data in dict.fromkeys(group.recipe.data.name for group in finished):
        rows = [_row(study, group) for group in _sorted(finished) if group.recipe.data.name == data]
        caption = f"{data}: mean ± standard deviation over n seeds; operations for one image."
        tables.append(Table(f"accuracy_{data}", caption, _ACCURACY, tuple(rows)))
    text = (
        "Top-1 and top-5 accuracy of the last epoch on all test images, BatchNorm's statistics recalibrated "
        "as the recipe says. Operations are counted on the network itself for one image: a pair (x, w) is "
        "one multiplication and one addition in a convolution, two additions in an adder layer, one XNOR "
        "(and one counted bit) in a binary one; norms, pools and activations are left out. Expected: what "
        "the recipe says that it should reach."
    )
    used = [run for group in finished for run in group.finished]
    return Section("accuracy", title, text, sources(finished, only=used), tuple(tables))


def costs(study: Study) -> Section | Absent:
    """The cost of one image for each kind of network, by published tables."""
    title = "Latency and energy of the operations"
    rows: list[dict[str, Cell]] = []
    families = {(group.recipe.model.name, group.recipe.data.name): group for group in study.groups}
    for group in families.values():
        try:
            rows += [row for row in _cost_rows(study, group) if row not in rows]
        except DataError:
            continue
    if not rows:
        return Absent(title, "the number of classes is not known without the data")
    text = (
        "Arithmetic alone, for one image, worked out from the counts and not measured. Cycles: 4 a "
        "multiplication and 2 an addition in float32 on a VIA Nano 2000 (Chen et al. 2020, section 4.1), 64 "
        "XNORs a cycle (Rastegari et al. 2016). Energy: 3.7 pJ a multiplication and 0.9 pJ an addition in "
        "float32 at 45 nm (Horowitz, ISSCC 2014), 0.03 pJ, an 8-bit addition, for an XNOR and its counting."
    )
    table = Table(
        "costs",
        "Each network of these runs with adder, convolutional and binary layers.",
        _COSTS,
        tuple(rows),
    )
    return Section("costs", title, text, tuple(_networks(study)), (table,))


def _networks(study: Study) -> Iterator[Source]:
    for name in dict.fromkeys(group.recipe.model.name for group in study.groups):
        recipes = [group.label for group in study.groups if group.recipe.model.name == name]
        yield Source(f"network {name} of {', '.join(recipes)}; counted, not trained, so no seeds")


def _sorted(groups: list[Group]) -> list[Group]:
    def order(group: Group) -> tuple[str, int]:
        return group.recipe.model.name, _KINDS.index(group.recipe.model.kind)

    return sorted(groups, key=order)


def _row(study: Study, group: Group) -> dict[str, Cell]:
    recipe, summaries = group.recipe, [run.summary for run in group.finished if run.summary]
    return {
        "network": recipe.model.name,
        "kind": KIND_NAMES[recipe.model.kind],
        "recipe": group.label,
        **_counts(study, group),
        "top1": Spread.of(summary.top1 for summary in summaries),
        "top5": Spread.of(summary.top5 for summary in summaries),
        "expected": recipe.expected.top1,
        "n": len(summaries),
        "epochs": recipe.schedule.epochs,
        "command": command_of(group.finished),
    }


def _counts(study: Study, group: Group) -> dict[str, Cell]:
    try:
        return _operations(study.operations(group.recipe))
    except DataError:
        return {}


def _operations(count: OperationCount) -> dict[str, Cell]:
    return {
        "multiplications": count.multiplications,
        "additions": count.additions,
        "xnors": count.xnors,
    }


def _cost_rows(study: Study, group: Group) -> Iterator[dict[str, Cell]]:
    counts = {kind: study.operations(group.recipe, kind=kind) for kind in _KINDS}
    cycles, energy = via_nano_cycles(counts["conv"]), energy_joules(counts["conv"])
    for kind, count in counts.items():
        yield {
            "network": group.recipe.model.name,
            "kind": KIND_NAMES[kind],
            **_operations(count),
            "cycles": via_nano_cycles(count),
            "relative_cycles": 100 * via_nano_cycles(count) / cycles,
            "energy": 1e6 * energy_joules(count),
            "relative_energy": 100 * energy_joules(count) / energy,
        }
