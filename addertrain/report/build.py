"""Builds a report from runs: computes every section once, then writes all files."""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import addertrain
from addertrain.report.document import Absent, Section
from addertrain.report.folder import FILES, NUMBERS, PAGE, TABLES, check_folder, write_folder
from addertrain.report.markdown import markdown_report
from addertrain.report.page import page
from addertrain.report.runs import read_runs
from addertrain.report.sections.accuracy import accuracy, costs
from addertrain.report.sections.activity import activity
from addertrain.report.sections.dynamics import dynamics
from addertrain.report.sections.features import features
from addertrain.report.sections.filters import filters
from addertrain.report.sections.gradients import gradients
from addertrain.report.sections.histograms import histograms
from addertrain.report.sections.learning import learning
from addertrain.report.sections.overview import overview
from addertrain.report.study import Study
from addertrain.report.style import house_style

_SECTIONS: tuple[Callable[[Study], Section | Absent], ...] = (
    overview, accuracy, costs, gradients, learning, features, filters, histograms, dynamics, activity,
)  # fmt: skip


@dataclass(frozen=True)
class Written:
    """The files and sections of a report."""

    page: Path
    num_pictures: int
    absent: tuple[Absent, ...]


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    data_root: str | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> Written:
    """Writes index.html, report.json, report.md and every figure as PNG and SVG into `out`. An earlier report
    there is replaced when the new one is complete; other files there stay.

    Args:
        data_root: the folder of the data sets, instead of the recipes' own.
        warn: receives one line for everything that is skipped: a damaged checkpoint, event files with gaps.

    Raises:
        UsageError, RunError, CheckpointError: a run cannot be read, or `out` is not a report.
    """
    check_folder(out)
    with contextlib.ExitStack() as holds, house_style():
        study = Study(read_runs(runs, warn, holds=holds), data_root=data_root)
        made = [section(study) for section in _SECTIONS]
    sections = [section for section in made if isinstance(section, Section)]
    absent = tuple(section for section in made if isinstance(section, Absent))
    pictures = [picture for section in sections for picture in section.pictures]
    images = {f"{picture.key}.png": picture.png for picture in pictures}
    drawings = {f"{picture.key}.svg": picture.svg for picture in pictures}
    report = plain_report(study, sections, absent)
    report[FILES] = [PAGE, TABLES, NUMBERS, *images, *drawings]
    files: dict[str, bytes] = {
        **images,
        **drawings,
        PAGE: page(report, images).encode(),
        TABLES: markdown_report(report).encode(),
        NUMBERS: (json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(),
    }
    write_folder(out, files)
    return Written(out / PAGE, len(pictures), absent)


def plain_report(study: Study, sections: Sequence[Section], absent: Sequence[Absent]) -> dict[str, Any]:
    """The report as JSON: every number of every table, unrounded."""
    names = ", ".join(group.label for group in study.groups)
    num_runs = sum(len(group.runs) for group in study.groups)
    return {
        "title": f"AdderNet report: {names}" if len(study.groups) < 3 else "AdderNet report",
        "made": f"addertrain {addertrain.__version__}, from {num_runs} run(s) of {names}",
        "sections": [section.plain() for section in sections],
        "absent": [{"title": one.title, "reason": one.reason} for one in absent],
    }
