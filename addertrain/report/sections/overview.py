"""Which runs the report is about, and what became of each."""

from addertrain.report.document import Absent, Section, sources
from addertrain.report.runs import Group, Run
from addertrain.report.study import Study
from addertrain.report.tables import Cell, Column, Table

_COLUMNS = (
    Column("run", "run"),
    Column("recipe", "recipe"),
    Column("seed", "seed", form="d"),
    Column("epochs", "epochs"),
    Column("top1", "top-1", "%", ".2f"),
    Column("top5", "top-5", "%", ".2f"),
    Column("loss", "test loss", "", ".4f"),
    Column("weights", "SHA-256 of the weights"),
)


def overview(study: Study) -> Section | Absent:
    """A row for every run."""
    rows = [_row(group, run) for group in study.groups for run in group.runs]
    table = Table(
        "runs",
        "Accuracy on all test images after the last epoch, as the run's summary has it.",
        _COLUMNS,
        tuple(rows),
    )
    text = (
        "Every run that this report was made from. An unfinished run is shown with the epochs that it has "
        "behind it and its last evaluation; it counts in no mean of accuracies."
    )
    return Section("runs", "Runs", text, sources(study.groups), (table,))


def _row(group: Group, run: Run) -> dict[str, Cell]:
    of = run.recipe.schedule.epochs
    row: dict[str, Cell] = {
        "run": run.label,
        "recipe": group.label,
        "seed": run.seed,
        "epochs": f"{run.epochs}" if run.summary else f"{run.epochs} of {of}, unfinished",
    }
    if run.summary is not None:
        return row | {
            "top1": run.summary.top1,
            "top5": run.summary.top5,
            "loss": run.summary.loss,
            "weights": run.summary.weights_sha256[:12],
        }
    last = {key: run.curves[tag].values[-1] for key, tag in _LAST.items() if tag in run.curves}
    return row | last


_LAST = {"top1": "accuracy/val_top1", "top5": "accuracy/val_top5", "loss": "loss/val"}
