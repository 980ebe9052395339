"""Places within pages: those that links, errors and comments name exist, by the hosting site's rules."""

import re
from pathlib import Path

import pytest

from tests.source_tree import ROOT, project_files, python_files

PAGES = [path for path in project_files() if path.suffix == ".md"]
_NAMED = re.compile(r"\b((?:docs|launch|kernels|recipes|findings)/[\w/.-]*\.md)#([\w-]+)")


def anchors(page: Path) -> set[str]:
    """Names of a page's headings: lower case, no punctuation, hyphens for blanks; a second one gets -1."""
    text = re.sub(r"^(```+).*?^\1[ \t]*$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: dict[str, int] = {}
    names = set(re.findall(r"\b(?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#+ +(.*?) *#*$", text, flags=re.M):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        count = found[name] = found.get(name, -1) + 1
        names.add(f"{name}-{count}" if count else name)
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_anchors_of_links_exist(page: Path) -> None:
    text = re.sub(r"^(```+).*?^\1[ \t]*$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    missing = []
    for target, anchor in re.findall(r"\]\(([^)\s#]*)#([^)\s]+)\)", text):
        other = (page.parent / target).resolve() if target else page
        if not target.startswith("http") and other.suffix == ".md" and anchor not in anchors(other):
            missing.append(f"{target}#{anchor}")

    assert not missing, missing


def _text_of(path: Path) -> str:
    """A program's text, in which a string that is divided over lines is one."""
    return re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8"))


def test_anchors_that_the_code_names_exist() -> None:
    scripts = [path for path in (ROOT / "launch").iterdir() if path.suffix in ("", ".py") and path.is_file()]
    named = [
        (path, *found) for path in [*python_files(), *scripts] for found in _NAMED.findall(_text_of(path))
    ]
    missing = [
        f"{path.relative_to(ROOT)}: {page}#{anchor}"
        for path, page, anchor in named
        if anchor not in anchors(ROOT / page)
    ]

    assert not missing, "\n".join(missing)
    assert len({anchor for _, page, anchor in named if page == "docs/troubleshooting.md"}) > 6


def test_messages_that_the_page_of_symptoms_quotes_are_given() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    program = re.sub(r"\{[^{}]*\}", "…", "\n".join(_text_of(path) for path in python_files()))
    symptoms = re.findall(r"^\*\*You see\*\*(.*?)\n\n", page, flags=re.M | re.S)
    quoted = [" ".join(code.split()) for text in symptoms for code in re.findall(r"`([^`]+)`", text)]
    others = ("addertrain ", "launch/", "pip ", "on CPUs:", "_C", "--")
    messages = [code for code in quoted if " " in code and not code.startswith(others)]

    assert len(messages) > 10
    assert not [message for message in messages if re.sub(r"[… ]+$", "", message) not in program]


def test_a_missing_anchor_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `word`, and 2.5 more\n\n## Again\n\n## Again\n\n```\n# no heading\n```\n")

    assert anchors(page) == {"a-word-and-25-more", "again", "again-1"}


def test_every_finding_is_listed_with_what_it_taught() -> None:
    text = (ROOT / "findings" / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| \[(\S+)\]\(\1\) \| [^|]+ \| ([^|]+) \|$", text, flags=re.M))

    assert set(rows) == {path.name for path in (ROOT / "findings").glob("*.sh")}
    assert all(len(lesson.split()) > 8 and lesson.rstrip()[-1] == "." for lesson in rows.values())
