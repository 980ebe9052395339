"""The documents keep their promises: links lead somewhere, the README's Python runs, its commands exist."""

import re
import sys

import pytest

from tests.commands import run_command
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
