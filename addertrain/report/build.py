"""A report from runs to files: every section asked once, then a folder that is whole or not there at all."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import addertrain
from addertrain.durable import hidden_name, remove_leftovers
from addertrain.report.document import Absent, Section
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
from addertrain.train.errors import RunError, UsageError

_SECTIONS: tuple[Callable[[Study], Section | Absent], ...] = (
    overview, accuracy, costs, gradients, learning, features, filters, histograms, dynamics, activity,
)  # fmt: skip
_PAGE, _NUMBERS = "index.html", "report.json"


@dataclass(frozen=True)
class Written:
    """What a report consists of."""

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
    """Writes index.html, report.json, report.md and every picture as PNG and SVG into `out`.

    An earlier report there is replaced, once the new one is whole.

    Args:
        data_root: where the data sets lie, in place of the recipes' own folders.
        warn: is told in one line what is passed over: a damaged checkpoint, event files with gaps.

    Raises:
        UsageError, RunError, CheckpointError: a run that cannot be read, or an `out` that is no report.
    """
    _check_out(out)
    study = Study(read_runs(runs, warn), data_root=data_root)
    with house_style():
        made = [section(study) for section in _SECTIONS]
    sections = [section for section in made if isinstance(section, Section)]
    absent = tuple(section for section in made if isinstance(section, Absent))
    pictures = [picture for section in sections for picture in section.pictures]
    report = plain_report(study, sections, absent)
    images = {f"{picture.key}.png": picture.png for picture in pictures}
    files: dict[str, bytes] = {
        **images,
        **{f"{picture.key}.svg": picture.svg for picture in pictures},
        _PAGE: page(report, images).encode(),
        "report.md": markdown_report(report).encode(),
        _NUMBERS: (json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(),
    }
    _replace_folder(out, files)
    return Written(out / _PAGE, len(pictures), absent)


def plain_report(study: Study, sections: Sequence[Section], absent: Sequence[Absent]) -> dict[str, Any]:
    """The report as JSON has it: every number of every table, unrounded."""
    names = ", ".join(group.label for group in study.groups)
    num_runs = sum(len(group.runs) for group in study.groups)
    return {
        "title": f"AdderNet report: {names}" if len(study.groups) < 3 else "AdderNet report",
        "made": f"addertrain {addertrain.__version__}, from {num_runs} run(s) of {names}",
        "sections": [section.plain() for section in sections],
        "absent": [{"title": one.title, "reason": one.reason} for one in absent],
    }


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: expected a folder for the report, got a file; choose another --out")
    if out.is_dir() and any(out.iterdir()) and not (out / _NUMBERS).exists():
        raise UsageError(
            f"{out}: expected a new folder or an earlier report, got other files; choose another --out"
        )


def _replace_folder(out: Path, files: dict[str, bytes]) -> None:
    """Puts a folder with these files in the place of `out` by a rename."""
    remove_leftovers(out.parent, re.escape(out.name))
    temporary = hidden_name(out, "tmp")
    old = hidden_name(out, "old")
    try:
        temporary.mkdir(parents=True)
        for name, contents in files.items():
            (temporary / name).write_bytes(contents)
        if out.exists():
            out.rename(old)
        temporary.rename(out)
    except OSError as error:
        raise RunError(
            f"{out}: expected a folder that can be written, got: {error.strerror}; choose another --out"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
