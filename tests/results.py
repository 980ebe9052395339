"""Tables of the documents, made from files of measurements: `python -m tests.results` writes them anew.

    <!-- SOURCE TABLE: COLUMN, COLUMN -->
    (the table)
    <!-- end of TABLE -->

SOURCE is a file under docs/results: report.json of `addertrain report`, or what a benchmark wrote with
--json, whose tables are its networks. Columns that are not named are left out.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from addertrain.report.markdown import markdown_table
from tests.source_tree import ROOT

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
RESULTS = ROOT / "docs" / "results"

_BLOCK = re.compile(r"<!-- (\S+\.json) (\S+): ([^>]+?) -->\n(.*?)\n<!-- end of \2 -->", re.DOTALL)
# Columns of `addertrain bench ops --json`, 1e9 elements/s, and the ceiling that a share is of.
_SPEEDS = {
    "forward": ("forward (share)", "forward"),
    "forward_relu": ("behind a ReLU", None),
    "grad_input": ("input gradient (share)", "grad_input"),
    "grad_input_relu": ("behind a ReLU", None),
    "grad_weight": ("weight gradient", None),
    "gradients_relu": ("both gradients behind a ReLU", None),
    "conv": ("conv", None),
}


def quoted_sources(text: str) -> set[str]:
    """The files that a page's tables are made from."""
    return {source for source, *_ in _BLOCK.findall(text)}


def with_tables(text: str) -> str:
    """The page with every marked table made anew."""
    return _BLOCK.sub(_made, text)


def _made(block: "re.Match[str]") -> str:
    source, key, names, old = block.groups()
    table = _tables(ROOT / source)[key]
    new = markdown_table(table, [name.strip() for name in names.split(",")])
    start = block.start(4) - block.start()
    return block[0][:start] + new + block[0][start + len(old) :]


def _tables(path: Path) -> dict[str, Mapping[str, Any]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if "sections" in content:
        return {table["key"]: table for section in content["sections"] for table in section["tables"]}
    networks = dict.fromkeys(row["network"] for row in content["rows"])
    return {
        network: _speed_table(
            [row for row in content["rows"] if row["network"] == network], content["ceilings"]
        )
        for network in networks
    }


def _speed_table(rows: Sequence[Mapping[str, Any]], ceilings: Mapping[str, float]) -> dict[str, Any]:
    def text(row: Mapping[str, Any], key: str, ceiling: str | None) -> str:
        share = f" ({100 * row[key] / ceilings[ceiling]:.0f} %)" if ceiling else ""
        return f"{row[key]:.1f}{share}"

    columns = [{"key": key, "label": key, "unit": "", "form": ""} for key in ("layer", "images")]
    columns += [{"key": key, "label": label, "unit": "", "form": ""} for key, (label, _) in _SPEEDS.items()]
    return {
        "columns": columns,
        "rows": [
            {
                "layer": row["layer"],
                "images": str(row["images"]),
                **{key: text(row, key, ceiling) for key, (_, ceiling) in _SPEEDS.items()},
            }
            for row in rows
        ],
    }


def main() -> None:
    """Writes the tables of every page anew."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(with_tables(text), encoding="utf-8")


if __name__ == "__main__":
    main()
