"""`addertrain report`: turns runs into the paper's tables and figures, and some of our own."""

import argparse
from pathlib import Path

from addertrain.cli.parser import EXIT_CODES, Commands
from addertrain.errors import UsageError
from addertrain.train.output import warn

_EPILOG = f"""examples:
  addertrain report runs/mnist-lenet5bn
  addertrain report runs/mnist-* --out report --data.root data

Runs of the same recipe are treated as its seeds. The report consists of index.html (one file, which works
offline), every figure as PNG and SVG, report.json with all numbers, and report.md with the tables. If the
data set is not found, figures that need test images are left out and named; nothing is downloaded.
--data.root DIR names the folder of the data sets.

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Adds the parser of the command."""
    parser = commands.add_parser(
        "report",
        help="write an HTML page of tables and figures from runs",
        description="Turns runs into the paper's tables and figures, as one HTML page that works offline.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run directories, of finished or unfinished runs"
    )
    parser.add_argument(
        "--out", metavar="DIR", default="report", help="the folder of the report (default: report)"
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Writes the report, and prints where it is and which sections were left out."""
    data_root = _data_root(overrides)
    from addertrain.report.build import write_report

    paths = [Path(name) for name in arguments.runs]
    written = write_report(paths, Path(arguments.out), data_root=data_root, warn=warn)
    for absent in written.absent:
        print(f"not shown    {absent.title}: {absent.reason}")
    print(f"numbers      {written.page.with_name('report.json')}")
    print(f"report       {written.page} ({written.num_pictures} figures)")
    return 0


def _data_root(overrides: list[str]) -> str | None:
    """The value of --data.root, the only key of a recipe that a report takes."""
    if not overrides:
        return None
    words = [*overrides[0].split("=", 1), *overrides[1:]]
    if len(words) != 2 or words[0] != "--data.root":
        raise UsageError(
            f"report: expected --data.root DIR as the only key of a recipe, got {' '.join(overrides)}; "
            "leave the others out"
        )
    return words[1]
