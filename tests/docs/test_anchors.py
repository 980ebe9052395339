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


def test_anchors_that_the_code_names_exist() -> None:
    files = [*python_files(), *(path for path in (ROOT / "launch").iterdir() if path.suffix in ("", ".py"))]
    texts = [(path, path.read_text(encoding="utf-8")) for path in files if path.is_file()]
    # A name that is divided over two lines of a string is one in the program.
    named = [
        (path, *found) for path, text in texts for found in _NAMED.findall(re.sub(r'"\s*\n\s*f?"', "", text))
    ]
    missing = [
        f"{path.relative_to(ROOT)}: {page}#{anchor}"
        for path, page, anchor in named
        if anchor not in anchors(ROOT / page)
    ]

    assert not missing, "\n".join(missing)


def test_a_missing_anchor_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `word`, and 2.5 more\n\n## Again\n\n## Again\n\n```\n# no heading\n```\n")

    assert anchors(page) == {"a-word-and-25-more", "again", "again-1"}


def test_every_finding_is_listed_with_what_it_taught() -> None:
    text = (ROOT / "findings" / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| \[(\S+)\]\(\1\) \| [^|]+ \| ([^|]+) \|$", text, flags=re.M))

    assert set(rows) == {path.name for path in (ROOT / "findings").glob("*.sh")}
    assert all(len(lesson.split()) > 8 and lesson.rstrip()[-1] == "." for lesson in rows.values())
