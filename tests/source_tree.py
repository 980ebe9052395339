"""The checkout's own files, as the tests about the code itself read them."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "addertrain"


def python_files(folder: Path = PACKAGE) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def project_files() -> list[Path]:
    """Every text file of the project: what git tracks or would track; all but ignored folders without git."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode == 0:
        paths = [ROOT / name for name in listing.stdout.splitlines()]
    else:
        ignored = {".venv", "build", "data", "dist", "runs", "__pycache__"}
        paths = [path for path in ROOT.rglob("*") if not ignored.intersection(path.parts)]
    return sorted(path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:4096])


def launch_module(name: str) -> ModuleType:
    """launch/NAME.py, which no package holds, imported under its name."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "launch" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Import:
    """One imported module, by its absolute dotted name, and where."""

    path: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.module}"


def imports(path: Path) -> Iterator[Import]:
    """All imports of a file, those inside functions too, and `torch.distributed` used through `import torch`.

    `from a import b` counts as a.b: the test cannot know whether b is a module, and its rules go by prefix.
    """
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        match node:
            case ast.Import(names=names):
                yield from (Import(path, node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = package[: len(package) - level + 1] if level else ()
                prefix = ".".join([*base, *([module] if module else [])])
                yield from (Import(path, node.lineno, f"{prefix}.{alias.name}") for alias in names)
            case ast.Attribute(value=ast.Name(id="torch"), attr="distributed"):
                yield Import(path, node.lineno, "torch.distributed")
