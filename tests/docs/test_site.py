"""The site of the documents builds without a warning, its links lead somewhere, it needs no network."""

import importlib.util
import re
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.source_tree import ROOT

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None,
    reason="MkDocs is not installed (launch/setup all installs it)",
)
# Attributes whose address the browser loads by itself; a link waits for a click.
LOADED = {
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "img": "src",
    "link": "href",
    "script": "src",
    "source": "srcset",
}


@dataclass
class Page(HTMLParser):
    """What a page links to, what it loads, the names of its places, and its texts by tag."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    paragraphs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._depth_of_code = 0
        self._is_paragraph = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if (address := values.get(LOADED.get(tag, ""))) is not None:
            self.loaded.append(address)
        self._depth_of_code += tag in ("code", "pre")
        if tag in ("p", "li", "td"):
            self._is_paragraph = True
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        self._depth_of_code -= tag in ("code", "pre")
        if tag in ("p", "li", "td"):
            self._is_paragraph = False

    def handle_data(self, data: str) -> None:
        if self._is_paragraph and not self._depth_of_code:
            self.paragraphs[-1] += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `launch/docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    (ROOT / "build" / "pages").mkdir(parents=True, exist_ok=True)
    command = ("-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder))
    result = run_command(sys.executable, *command, NO_MKDOCS_2_WARNING="1")
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    found = {}
    for path in site.rglob("*.html"):
        page = found[path.relative_to(site).as_posix()] = Page()
        page.feed(path.read_text(encoding="utf-8"))
    return found


def test_every_document_is_a_page(pages: dict[str, Page]) -> None:
    names = {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} - {"api.html"}

    assert names | {"api/index.html", "api/addertrain.nn.html", "recipes.html"} <= set(pages)


def test_links_and_anchors_lead_somewhere(site: Path, pages: dict[str, Page]) -> None:
    broken = [
        f"{name}: {link}"
        for name, page in pages.items()
        if name != "404.html"  # it may be shown at any address
        for link in page.links
        if not re.match(r"[a-z]+:", link) and not _leads_somewhere(site, pages, name, link)
    ]

    assert not broken, "\n".join(broken)


def _leads_somewhere(site: Path, pages: dict[str, Page], name: str, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = ((site / name).parent / path).resolve() if path else (site / name).resolve()
    if not target.exists():
        return False
    other = pages.get(target.relative_to(site.resolve()).as_posix())
    return not anchor or other is None or anchor in other.anchors


def test_pages_load_nothing_from_another_host(site: Path, pages: dict[str, Page]) -> None:
    foreign = {
        f"{name}: {address}"
        for name, page in pages.items()
        for address in page.loaded
        if re.match(r"(?:https?:)?//", address)
    }
    styles = {
        f"{path.name}: {address}"
        for path in site.rglob("*.css")
        for address in re.findall(
            r"(?:url\(|@import )[\"']?((?:https?:)?//[^)\"']+)", path.read_text(encoding="utf-8")
        )
    }
    # The theme's script fetches a library where a page has a diagram or a font with icons of its own.
    diagrams = {name for name in pages if 'class="mermaid"' in (site / name).read_text(encoding="utf-8")}

    assert not foreign | styles | diagrams


def test_marks_of_markdown_do_not_remain_in_texts(pages: dict[str, Page]) -> None:
    """What the hosting site shows as a list, a table, a link or code, this site's parser knows too."""
    left = re.compile(r"^\s*[-*] |\n\s*[-*] |\|---|```|\]\(|\*\*|\[!\w+\]|^:::")
    remains = [
        f"{name}: {text.strip()[:100]}"
        for name, page in pages.items()
        if not name.startswith("source/")
        for text in page.paragraphs
        if left.search(text)
    ]

    assert not remains, "\n".join(remains)


def test_stars_of_equations_are_no_emphasis(site: Path) -> None:
    """Of `p*u + r*e` in a docstring, outside a block of code, the parser would make slanted letters."""
    slanted = [
        path.name for path in (site / "api").glob("*.html") if "<em>" in path.read_text(encoding="utf-8")
    ]

    assert not slanted


def test_search_works_without_a_server(site: Path) -> None:
    assert (site / "search" / "search_index.js").is_file()
    assert 'src="assets/iframe-worker.js"' in (site / "training.html").read_text(encoding="utf-8")
