"""`addertrain report`: runs into the paper's tables and figures, and some of our own."""

import argparse
from pathlib import Path

from addertrain.cli.parser import EXIT_CODES, Commands
from addertrain.errors import UsageError
from addertrain.train.output import warn

_EPILOG = f"""examples:
  addertrain report runs/mnist-lenet5bn
  addertrain report runs/mnist-* --out report --data.root data

Runs of one recipe count as its seeds. DIR gets index.html (one file, to be opened offline), every picture as
PNG and SVG, report.json with all numbers, and report.md with the tables. Where the data are not there, what
needs test images is left out, with a line that says so; nothing is downloaded.

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the command's words."""
    parser = commands.add_parser(
        "report",
        help="tables and figures from runs, as a page",
        description="Turns runs into the paper's tables and figures: one page that works offline.",
        epilog=_EPILOG,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories, finished or not")
    parser.add_argument(
        "--out", metavar="DIR", default="report", help="where the report goes (default: report)"
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Writes the report, and says where it is and what it lacks."""
    data_root = _data_root(overrides)
    from addertrain.report.build import write_report

    paths = [Path(name) for name in arguments.runs]
    written = write_report(paths, Path(arguments.out), data_root=data_root, warn=warn)
    for absent in written.absent:
        print(f"not shown    {absent.title}: {absent.reason}")
    print(f"numbers      {written.page.with_name('report.json')}")
    print(f"report       {written.page} ({written.num_pictures} pictures)")
    return 0


def _data_root(overrides: list[str]) -> str | None:
    """The value of --data.root, the one key of a recipe that a report may change."""
    words = [part for word in overrides for part in word.split("=", 1)]
    if not words:
        return None
    if len(words) != 2 or words[0] != "--data.root":
        raise UsageError(
            f"report: expected no key of a recipe but --data.root DIR, got {' '.join(overrides)}"
        )
    return words[1]
