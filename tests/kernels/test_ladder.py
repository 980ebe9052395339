"""kernels/ladder compiles where nvcc is; on a GPU every rung gives right results."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.source_tree import ROOT


def _compiled(folder: Path, architecture: str) -> Path:
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc")
    program = folder / "ladder"
    source = ROOT / "kernels" / "ladder" / "main.cu"
    options = ["-std=c++20", "-O3", f"-arch={architecture}", "-I", str(ROOT / "kernels")]
    result = subprocess.run(
        ["nvcc", *options, str(source), "-o", str(program)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stderr, result.stderr
    return program


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_ladder_compiles(tmp_path: Path) -> None:
    _compiled(tmp_path, "sm_90")


@pytest.mark.gpu
@pytest.mark.timeout(600)
def test_every_rung_is_right(tmp_path: Path) -> None:
    result = subprocess.run([_compiled(tmp_path, "native")], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "WRONG" not in result.stdout
