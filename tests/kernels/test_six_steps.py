"""The six steps of kernels/README.md: its blocks fit the sources, build, and pass their own test."""

import ast
import importlib
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.kernels.builds import configure, tool
from tests.source_tree import ROOT

README = (ROOT / "kernels" / "README.md").read_text(encoding="utf-8")

# Without the finder of an editable installation, which would import the checkout instead of the copy.
PYTEST_IN_A_COPY = """
import sys
sys.meta_path = [one for one in sys.meta_path if "ScikitBuild" not in type(one).__name__]
sys.path.insert(0, "")
import pytest
sys.exit(pytest.main(["-n", "0", "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


@dataclass(frozen=True)
class Block:
    """A fenced block whose first line names a file: what the file holds, or a change of it."""

    path: str
    text: str
    is_change: bool

    def apply(self, root: Path) -> None:
        """Writes the file below `root`; a change must fit it in one place."""
        target = root / self.path
        if not self.is_change:
            assert not target.exists(), f"{self.path}: expected a name that is not taken"
            target.write_text(self.text, encoding="utf-8")
            return
        lines = self.text.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] != "+")
        after = "".join(line[1:] for line in lines if line[0] != "-")
        source = target.read_text(encoding="utf-8")
        assert source.count(before) == 1, f"{self.path}: expected in one place:\n{before}"
        target.write_text(source.replace(before, after), encoding="utf-8")


def _blocks() -> list[Block]:
    _, _, text = README.partition("\n## Add a kernel in six steps\n")
    text, _, _ = text.partition("\n## ")
    found = re.findall(r"^```(python|cpp|diff)\n(?:#|//) (\S+)\n(.*?)^```$", text, re.M | re.S)
    return [Block(path, body, language == "diff") for language, path, body in found]


def _copy(root: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "results")
    for folder in ("addertrain", "kernels", "tests"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", root)


def test_the_steps_fit_the_sources(tmp_path: Path) -> None:
    for path in {Path(block.path) for block in _blocks()}:
        (tmp_path / path.parent).mkdir(parents=True, exist_ok=True)
        if (ROOT / path).exists():
            shutil.copy(ROOT / path, tmp_path / path)
    for block in _blocks():
        block.apply(tmp_path)

    assert len([block for block in _blocks() if not block.is_change]) == 4


def test_the_steps_import_what_is_there() -> None:
    added = {block.path.removesuffix(".py").replace("/", ".") for block in _blocks() if not block.is_change}
    imports = [
        (node.module, alias.name)
        for block in _blocks()
        if block.path.endswith(".py") and not block.is_change
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module not in added
        for alias in node.names
    ]

    assert imports
    assert not [(of, name) for of, name in imports if not hasattr(importlib.import_module(of), name)]


@pytest.mark.long
@pytest.mark.timeout(1800)  # every instruction set is compiled
def test_the_steps_make_an_operator(tmp_path: Path) -> None:
    _copy(tmp_path)
    for block in _blocks():
        block.apply(tmp_path)
    build = tmp_path / "build"
    configured = configure(build, "-DADDERTRAIN_CUDA=OFF", kernels=tmp_path / "kernels")
    assert configured.returncode == 0, configured.stdout + configured.stderr
    built = run_command(tool("ninja"), "-C", str(build), "_C", timeout_s=1500.0)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "warning" not in built.stdout, built.stdout
    shutil.copy(build / "_C.so", tmp_path / "addertrain")

    files = ("tests/ops/test_filter_peaks.py", "tests/ops/test_derivatives.py")
    tested = run_command(sys.executable, "-c", PYTEST_IN_A_COPY, *files, cwd=tmp_path, timeout_s=300.0)

    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert re.search(r"\d+ passed", tested.stdout), tested.stdout
