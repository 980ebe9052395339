"""Gathers the pages of the site in build/pages, from which it is built (mkdocs.yml).

The pages in docs/ link to other files by relative paths, which work wherever the repository is shown. On
the site such a link leads to the page that is made of the file: a README or the changelog is a page as it
stands, a source file or a recipe is shown as code. No address of a repository is needed. The API reference
gets a page for each public module.
"""

import json
import posixpath
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))  # launch/ is no package

import docs_pages

ROOT = docs_pages.ROOT
FOLDER = ROOT / "build" / "pages"

# Files elsewhere that are pages of the site, under these names.
PAGES = {
    "docs/api.md": "api/index.md",
    "recipes/README.md": "recipes.md",
    "launch/README.md": "launching.md",
    "kernels/README.md": "kernel-sources.md",
    "findings/README.md": "findings.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
LANGUAGES = {
    "": "bash", ".cpp": "cpp", ".cu": "cuda", ".h": "cpp", ".py": "python", ".sh": "bash", ".toml": "toml",
    ".yaml": "yaml",
}  # fmt: skip
_PICTURE = re.compile(
    r"<picture>\s*<source media=\"\(prefers-color-scheme: dark\)\" srcset=\"([^\"]+)\">\s*"
    r"<img alt=\"([^\"]*)\" src=\"([^\"]+)\"[^>]*>\s*</picture>"
)
_CODE = re.compile(r"^(```+|~~~+).*?^\1[ \t]*$|(?<!`)(`+)(?!`).+?(?<!`)\2(?!`)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def write_pages() -> None:
    """Writes all that the site is made of into FOLDER; a file that has not changed keeps its time."""
    pages, media = dict(_own_pages()), _media()
    wanted = {
        target
        for uri, (origin, text) in pages.items()
        if uri != PAGES["docs/api.md"]  # its links go to docstrings instead
        for target in _targets(text, origin)
        if site_uri(target) not in pages and (ROOT / target).exists()
    }
    written = {
        uri: _with_links_of_the_site(uri, origin, text).encode() for uri, (origin, text) in pages.items()
    }
    written[PAGES["docs/api.md"]] = docs_pages.api_page(is_site=True).encode()
    written |= {site_uri(target): _source_page(target).encode() for target in wanted - media}
    written |= {target.removeprefix("docs/"): (ROOT / target).read_bytes() for target in media}
    written |= {f"api/{module}.md": page.encode() for module, page in docs_pages.module_pages().items()}
    for path in [path for path in FOLDER.rglob("*") if path.is_file()]:
        if path.relative_to(FOLDER).as_posix() not in written:
            path.unlink()
    for uri, content in written.items():
        path = FOLDER / uri
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def on_pre_build(**_: Any) -> None:
    """MkDocs calls it before each build, and so after each change that `launch/docs --serve` sees."""
    write_pages()


def _own_pages() -> Iterator[tuple[str, tuple[str, str]]]:
    """(page, (file that it is made of, text)) of all that is written as text."""
    for path in sorted((ROOT / "docs").rglob("*.md")):
        yield site_uri(_place(path)), (_place(path), path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "docs").rglob("*.ipynb")):
        yield site_uri(_place(path)), (_place(path), notebook_page(path.read_text(encoding="utf-8")))
    for origin, uri in PAGES.items():
        if not origin.startswith("docs/") and (ROOT / origin).is_file():
            yield uri, (origin, (ROOT / origin).read_text(encoding="utf-8"))


def _media() -> set[str]:
    """Files below docs/ that are no pages: pictures, results, what the pages load."""
    files = (path for path in (ROOT / "docs").rglob("*") if path.is_file())
    return {
        _place(path)
        for path in files
        if path.suffix not in (".md", ".ipynb", ".py", ".pyc") and path.name[0] != "."
    }


def _place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _with_links_of_the_site(uri: str, origin: str, text: str) -> str:
    def link(found: "re.Match[str]") -> str:
        target, anchor = _resolved(found[2], origin)
        if target is None:
            return found[0]
        place = posixpath.relpath(site_uri(target), posixpath.dirname(uri) or ".")
        return f"{found[1]}{place}{anchor}{found[3]}"

    return _outside_code(text, lambda part: _LINK.sub(link, _with_pictures_of_both_schemes(part)))


def _with_pictures_of_both_schemes(text: str) -> str:
    """Turns an illustration that follows the system's colours into two; the theme shows the one of its own
    colours.
    """
    return _PICTURE.sub(r"![\2](\3#only-light)\n![\2](\1#only-dark)", text)


def site_uri(path: str) -> str:
    """The page or file of the site that shows a file or folder of the checkout."""
    if path == "README.md":  # the site begins with a page of its own
        return "index.md"
    if path in PAGES:
        return PAGES[path]
    if f"{path}/README.md" in PAGES:
        return PAGES[f"{path}/README.md"]
    if path.startswith("docs/") and not (ROOT / path).is_dir() and not path.endswith(".py"):
        name = path.removeprefix("docs/")
        return f"{name.removesuffix('.ipynb')}.md" if name.endswith(".ipynb") else name
    return f"source/{path}.md"


def notebook_page(content: str) -> str:
    """A notebook as Markdown: its texts, its code, and what the code wrote and drew."""
    blocks = []
    for cell in json.loads(content)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(source)
        elif cell["cell_type"] == "code":
            blocks += [_fenced(source, "python"), *_outputs(cell)]
    return "\n\n".join(blocks) + "\n"


def _outputs(cell: dict[str, Any]) -> Iterator[str]:
    for output in cell["outputs"]:
        data = output.get("data", {"text/plain": output.get("text", "")})
        if "image/png" in data:
            yield f"![what the code above drew](data:image/png;base64,{''.join(data['image/png'].split())})"
        elif text := "".join(data.get("text/plain", "")).rstrip():
            yield _fenced(text, "text")


def _targets(text: str, origin: str) -> Iterator[str]:
    """Every file or folder of the checkout that a page links to; code holds no links."""
    for found in _LINK.finditer(_CODE.sub("", text)):
        target, _ = _resolved(found[2], origin)
        if target is not None:
            yield target


def _resolved(link: str, origin: str) -> tuple[str | None, str]:
    path, mark, anchor = link.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return None, ""
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), path)), mark + anchor


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    parts, end = [], 0
    for code in _CODE.finditer(markdown):
        parts += [change(markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, change(markdown[end:])])


def _source_page(path: str) -> str:
    """A file as code, a folder as a list of its files; search leaves both out."""
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n"
    place = ROOT / path
    if place.is_dir():
        names = sorted(
            each.name + "/" * each.is_dir() for each in place.iterdir() if each.name[0] not in "._"
        )
        return head + "\n".join(f"- `{name}`" for name in names) + "\n"
    return head + _fenced(place.read_text(encoding="utf-8"), LANGUAGES.get(place.suffix, "text")) + "\n"


def _fenced(text: str, language: str) -> str:
    longest = max(map(len, re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


if __name__ == "__main__":
    write_pages()
