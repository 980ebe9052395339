"""The numbers in the documents are those that were measured."""

import json
import re
from pathlib import Path

import pytest

from addertrain.recipe import load_recipe
from tests.results import PAGES, RESULTS, quoted_sources, with_tables
from tests.source_tree import ROOT

_MEASURED = re.compile(r"measured (\d+\.\d+) ± (\d+\.\d+) %")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_equal_their_sources(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert text == with_tables(text), "a table differs from its source: python -m tests.results"


def test_a_changed_number_is_noticed() -> None:
    page = ROOT / "docs" / "reproducing.md"
    text = page.read_text(encoding="utf-8")
    (number,) = re.findall(r"\| mnist-lenet5bn \|.*?(\d\d\.\d\d) ±", text)[:1]
    changed = text.replace(f"| {number} ±", "| 99.99 ±")

    assert changed != text
    assert with_tables(changed) == text


def test_every_source_is_quoted() -> None:
    quoted = set().union(*(quoted_sources(page.read_text(encoding="utf-8")) for page in PAGES))
    there = {str(path.relative_to(ROOT)) for path in RESULTS.rglob("*.json")}

    assert there == quoted


def test_what_a_recipe_says_was_measured_is_in_a_table() -> None:
    """Of the recipe as it stands: by its name and its number of epochs."""
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if (claim := _MEASURED.search(text)) is None:
            continue
        recipe = load_recipe(path, [])
        rows = [
            row
            for row in _accuracy_rows()
            if row["recipe"] == recipe.name and row["epochs"] == recipe.schedule.epochs
        ]
        found = {(f"{row['top1']['mean']:.2f}", f"{row['top1']['std'] or 0:.2f}") for row in rows}
        assert claim.groups() in found, f"{path.name}: says {claim[0]}, the tables say {sorted(found)}"


def test_what_the_summary_says_was_measured_is_in_a_table() -> None:
    """The tables at the top of docs/reproducing.md are written by hand: they repeat the reports."""
    text = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
    summary = text.partition("\n## Results\n")[2].partition("\n### Where the reference numbers")[0]
    claims = set(re.findall(r"(\d\d\.\d\d) ± (\d\.\d\d)", summary))
    found = {(f"{row['top1']['mean']:.2f}", f"{row['top1']['std'] or 0:.2f}") for row in _accuracy_rows()}

    assert len(claims) == 5
    assert claims <= found


def _accuracy_rows() -> list[dict[str, object]]:
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.rglob("report.json")]
    return [
        row
        for report in reports
        for section in report["sections"]
        if section["key"] == "accuracy"
        for table in section["tables"]
        for row in table["rows"]
    ]
