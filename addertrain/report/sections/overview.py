"""The runs of the report, and the state and result of each."""

from addertrain.report.document import Absent, Section, sources
from addertrain.report.runs import Group, Run
from addertrain.report.sessions import repeatable_command
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


_SESSIONS = (
    Column("run", "run"),
    Column("session", "session", form="d"),
    Column("started", "started"),
    Column("launcher", "launcher"),
    Column("ranks", "ranks", form="d"),
    Column("machines", "machines", form="d"),
    Column("strategy", "strategy"),
    Column("device", "device"),
    Column("resumed_from", "resumed from"),
    Column("changed", "changed keys"),
    Column("command", "command", on_page=False),
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
    sessions = [row for group in study.groups for run in group.runs for row in _session_rows(run)]
    how = Table(
        "sessions",
        "How each run came about: every session that led to its checkpoint, the ranks that trained and how.",
        _SESSIONS,
        tuple(sessions),
    )
    text = (
        "Every run that this report was made from. An unfinished run is shown with the epochs that it has "
        "behind it and its last evaluation; it counts in no mean of accuracies."
    )
    return Section("runs", "Runs", text, sources(study.groups), (table, how) if sessions else (table,))


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


def _session_rows(run: Run) -> list[dict[str, Cell]]:
    return [
        {
            "run": run.label,
            "session": number,
            "started": session.get("started"),
            "launcher": session.get("launcher") or "none",
            "ranks": session.get("world_size"),
            "machines": session.get("num_nodes"),
            "strategy": session.get("strategy"),
            "device": session.get("device"),
            "resumed_from": session.get("resumed_from"),
            "changed": "; ".join(session.get("changed") or ()) or None,
            "command": repeatable_command(session) or None,
        }
        for number, session in enumerate(run.sessions, start=1)
    ]


_LAST = {"top1": "accuracy/val_top1", "top5": "accuracy/val_top5", "loss": "loss/val"}
