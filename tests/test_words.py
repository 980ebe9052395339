"""Words that texts for readers do not use: each has a plain word of the field instead.

Help texts, messages, docstrings and comments are read; names, recipe keys and values, and text in backquotes
are not, because they cannot change.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.source_tree import PACKAGE, ROOT, project_files, python_files

# A retired word, as a pattern, and what to say instead.
RETIRED: dict[str, str] = {
    r"twins?": "convolutional baseline",
    r"stale": "uncalibrated",
    r"sound": "finite",
    r"reckoning": "cost model",
    r"dear(er)?": "expensive",
    r"in fours": "divisible by four",
    r"companions": "auxiliary modules",
    r"(go|goes|going|went) on": "resume, continue",
    r"anew": "again",
    r"somebody": "the user, another program",
    r"whoever": "the process that, the caller",
    r"beside": "next to, with, compared with",
    r"pictures? (of|that|which|in|are|is|by|from|to)": "image",
    r"(is|are|as|each|every|the) pictures?": "image",
    r"cut (over|into) (the )?(ranks|parts)": "sharded over the ranks, split into micro-batches",
    r"parts of a batch": "micro-batches",
    r"whole (tensors?|parameters?|filters?|gradients?|checkpoints?)": "unsharded, intact, complete",
    r"is well": "is healthy",
}
_RETIRED = re.compile(rf"\b(?:{'|'.join(f'(?:{pattern})' for pattern in RETIRED)})\b")
# What may stay: names and values, and the field's own terms.
ALLOWED = re.compile(
    r"`[^`]*`"
    r"|teacher: twin|\btwin, the|none; twin|\"[a-z_]+\""  # a recipe's value
    r"|is_sound|whole_[a-z]+|beside the point"
    r"|[\w./-]*_(?:twin|picture|whole|companions)[\w./-]*|companions\.safetensors"
)
PAGES = [path for path in project_files() if path.suffix == ".md"]
HEADS = sorted((ROOT / "recipes").rglob("*.yaml"))
SCRIPTS = sorted(
    path
    for path in (ROOT / "launch").iterdir()
    if path.suffix == "" and path.is_file() and path.read_text(encoding="utf-8").startswith("#!")
)
SOURCES = [path for path in project_files() if path.suffix in {".h", ".cpp", ".cu"}]


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every docstring, comment and message of a Python file."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value


def comments_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every `//` comment of a C++ or CUDA file."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        _, slashes, text = line.partition("//")
        if slashes:
            yield number, text


def retired_in(text: str) -> list[str]:
    """The retired words in a text, each with what to say instead."""
    found = []
    for match in _RETIRED.finditer(ALLOWED.sub(" ", text)):
        better = next(word for pattern, word in RETIRED.items() if re.fullmatch(pattern, match[0]))
        found.append(f"'{match[0]}': say {better}")
    return found


def _complaints(path: Path, texts: Iterator[tuple[int, str]]) -> list[str]:
    name = path.relative_to(ROOT)
    return [f"{name}:{line}: {word}" for line, text in texts for word in retired_in(text)]


@pytest.mark.parametrize("folder", [PACKAGE, ROOT / "launch"], ids=["package", "launch"])
def test_texts_of_the_code_use_the_words_of_the_field(folder: Path) -> None:
    complaints = [line for path in python_files(folder) for line in _complaints(path, texts_of(path))]

    assert not complaints, "\n".join(complaints)


def test_comments_of_the_kernels_use_the_words_of_the_field() -> None:
    assert len(SOURCES) > 100
    complaints = [line for path in SOURCES for line in _complaints(path, comments_of(path))]

    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("paths", [SCRIPTS, HEADS, PAGES], ids=["scripts", "recipes", "pages"])
def test_texts_of_scripts_recipes_and_pages_use_the_words_of_the_field(paths: list[Path]) -> None:
    assert len(paths) > 5
    complaints = [
        line
        for path in paths
        for line in _complaints(path, iter(enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)))
    ]

    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Trains the convolutional twin beside it.", 2),
        ("The run goes on, and somebody reads the picture.", 3),
        ("`is_sound` and distill.teacher: twin are names.", 0),
        ("Whole numbers are fine, and so is a partial sum.", 0),
    ],
)
def test_a_retired_word_is_found_and_a_name_is_not(text: str, count: int) -> None:
    assert len(retired_in(text)) == count
