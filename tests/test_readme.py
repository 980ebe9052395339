"""The documents keep their promises: links lead somewhere, Python runs, results stand in their sources."""

import re
from typing import Any

import pytest

from tests.source_tree import ROOT, project_files

PAGES = [str(path.relative_to(ROOT)) for path in project_files() if path.suffix == ".md"]


def _text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    targets = [
        target.partition("#")[0]
        for target in re.findall(
            r"\]\(([^)]+)\)", re.sub(r"^```.*?^```$", "", _text(page), flags=re.M | re.S)
        )
        if not target.startswith(("http", "#"))
    ]
    broken = [target for target in targets if not ((ROOT / page).parent / target).exists()]

    assert not broken, broken


@pytest.mark.parametrize(
    "page", ["README.md", "docs/layer.md", "docs/converting.md", "docs/grouped-layers.md"]
)
def test_python_of_the_pages_about_layers_runs(page: str) -> None:
    """The blocks of a page one after the other, as a reader would enter them."""
    blocks = re.findall(r"```python\n(.*?)```", _text(page), re.DOTALL)
    names: dict[str, Any] = {}

    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_results_of_the_readme_stand_in_their_sources() -> None:
    """An accuracy with its deviation in the head of its recipe, all others in the pages with every row."""
    _, _, rest = _text("README.md").partition("## Results\n")
    results, _, _ = rest.partition("\n## ")
    pages = _text("docs/reproducing.md") + _text("docs/performance-cpu.md")
    measured = re.findall(r"^\|.*?(\d+\.\d+ ± \d+\.\d+).*\((recipes/.*?)\) \|$", results, re.MULTILINE)

    assert len(measured) == results.count(" ± ") > 1
    assert not [(claim, recipe) for claim, recipe in measured if f"{claim} %" not in _text(recipe)]
    others = re.findall(r"\d+\.\d+", re.sub(r"\d+\.\d+ ± \d+\.\d+", "", results))
    assert not [number for number in others if not re.search(rf"\b{number}\b", pages)]
