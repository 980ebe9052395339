"""The README keeps its promises: its links lead somewhere, its Python runs, its commands exist."""

import re
import sys

import pytest

from tests.commands import run_command
from tests.source_tree import ROOT

PAGES = (
    "README.md",
    "CHANGELOG.md",
    "docs/design.md",
    "docs/distributed.md",
    "docs/kernels.md",
    "docs/lightning.md",
    "docs/report.md",
    "docs/reproducing.md",
    "docs/training.md",
    "launch/README.md",
)


def _text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    targets = [
        target.partition("#")[0]
        for target in re.findall(r"\]\(([^)]+)\)", _text(page))
        if not target.startswith(("http", "#"))
    ]
    broken = [target for target in targets if not ((ROOT / page).parent / target).exists()]

    assert not broken, broken


def test_python_of_the_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", _text("README.md"), re.DOTALL)

    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_commands_of_the_readme_exist() -> None:
    text = _text("README.md")
    named = set(re.findall(r"(?:\./|source )(launch/\w+)", text)) | set(
        re.findall(r"recipes/\S+?\.yaml", text)
    )
    spoken = set(re.findall(r"^addertrain (\w+)", text, re.MULTILINE))
    known = run_command(sys.executable, "-m", "addertrain", "--help").stdout

    assert not [name for name in named if not (ROOT / name).exists()]
    assert not [word for word in spoken if not re.search(rf"^\s+{word}\b", known, re.MULTILINE)]
