"""How the code is written: linter, formatter, type checker, sizes, and no trace of one machine."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source_tree import ROOT, imports, project_files, python_files

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80
FEW_FILE_LINES = 40
# Folders of one file for each entry of a list.
LISTS = {"cli", "interchange", "models", "sections", "sets"}
MAX_DOCSTRING_LINES = 25
SOURCE_SUFFIXES = {".py", ".cpp", ".cu", ".cuh", ".h", ".cmake", ".yaml", ".sh"}
# Folders of one person's or one machine's, and hosts that a mirror may replace.
MACHINE_PATH = re.compile(r"(?<![\w.])/(work|root|farm|home|Users)/\w")
REGISTRY_HOST = re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|pypi\.nvidia\.com")


def _run_tool(name: str, *arguments: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed (it comes with the dev extra)")
    result = subprocess.run(
        [sys.executable, "-m", name, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, f"{name} {' '.join(arguments)}\n{result.stdout}{result.stderr}"


def test_ruff_check() -> None:
    _run_tool("ruff", "check", ".")


def test_ruff_format() -> None:
    _run_tool("ruff", "format", "--check", ".")


@pytest.mark.timeout(400)  # without a cache mypy reads all of torch first
def test_mypy() -> None:
    _run_tool("mypy")


def _sources() -> list[Path]:
    return [path for path in project_files() if path.suffix in SOURCE_SUFFIXES]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_a_file_holds_one_idea() -> None:
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in _sources()}
    long = {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES}

    assert not long, f"past {MAX_FILE_LINES} lines a file holds two ideas: {long}"


def test_a_short_file_is_needed_in_two_places() -> None:
    """A file of a few lines is an entry of a list, or serves several; else it belongs where it is needed."""
    wanted = [(found.module, found.path) for path in python_files() for found in imports(path)]
    lonely = []
    for path in python_files():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        users = {user for name, user in wanted if name == module or name.startswith(module + ".")}
        num_lines = len(path.read_text(encoding="utf-8").splitlines())
        is_entry = path.parent.name in LISTS or path.name.startswith("__")
        if num_lines < FEW_FILE_LINES and len(users) < 2 and not is_entry:
            lonely.append(f"{_name(path)}: {num_lines} lines")

    assert not lonely, "\n".join(lonely)


def _functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_a_function_does_one_job() -> None:
    long = [
        f"{_name(path)}:{function.lineno} {function.name}: {lines} lines"
        for path in [*python_files(), *python_files(ROOT / "tests")]
        for function in _functions(path)
        if (lines := (function.end_lineno or function.lineno) - function.lineno + 1) > MAX_FUNCTION_LINES
    ]

    assert not long, "\n".join(long)


def test_docstrings_stay_short() -> None:
    long = [
        f"{_name(path)}:{node.lineno if hasattr(node, 'lineno') else 1}: {len(text.splitlines())} lines"
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if len((text := ast.get_docstring(node) or "").splitlines()) > MAX_DOCSTRING_LINES
    ]

    assert not long, "\n".join(long)


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY_HOST], ids=["machine path", "registry host"])
def test_no_trace_of_one_machine(pattern: re.Pattern[str]) -> None:
    traces = [
        f"{_name(path)}:{number}: {line.strip()[:100]}"
        for path in project_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]

    assert not traces, "\n".join(traces)


def test_the_package_has_no_catch_all_files() -> None:
    names = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
    wrong = [_name(path) for path in python_files() if path.stem in names or path.parent.name in names]

    assert not wrong, wrong
