"""Builds of the operator libraries in a folder of their own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.source_tree import ROOT


def tool(name: str) -> str:
    """From the environment's own folder or from PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (it comes with the dev extra)")
    return found


def configure(folder: Path, *definitions: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """CMake's first step over kernels/, for the Python that runs the tests."""
    command = (tool("cmake"), "-G", "Ninja", "-S", str(ROOT / "kernels"), "-B", str(folder))
    fixed = (f"-DPython_EXECUTABLE={sys.executable}", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}")
    return run_command(*command, *fixed, *definitions, **environment)
