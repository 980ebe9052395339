"""Builds of the operator libraries: in a folder of their own, or the installed one where it is as good."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import addertrain
from tests.commands import run_command
from tests.kernels.sass import architectures_of
from tests.source_tree import ROOT


def tool(name: str) -> str:
    """From the environment's own folder or from PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (it comes with the dev extra)")
    return found


def configure(
    folder: Path, *definitions: str, kernels: Path = ROOT / "kernels", **environment: str
) -> subprocess.CompletedProcess[str]:
    """CMake's first step over kernels/, for the Python that runs the tests."""
    command = (tool("cmake"), "-G", "Ninja", "-S", str(kernels), "-B", str(folder))
    fixed = (f"-DPython_EXECUTABLE={sys.executable}", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}")
    return run_command(*command, *fixed, *definitions, **environment)


ONE_ARCHITECTURE = "90"


def installed_cuda_library() -> Path | None:
    """What launch/setup has built where no GPU is; None where sources are newer, or a GPU chose otherwise."""
    kernels = ROOT / "kernels"
    elsewhere = (kernels / "csrc" / "cpu", kernels / "csrc" / "onnxruntime", kernels / "ladder")
    sources = [path for path in kernels.rglob("*") if not any(path.is_relative_to(no) for no in elsewhere)]
    newest = max(path.stat().st_mtime for path in sources if path.is_file() and path.suffix != ".md")
    for library in (Path(folder, "_C_cuda.so") for folder in addertrain.__path__):
        if library.exists() and library.stat().st_mtime > newest:
            return library if architectures_of(library) == {f"sm_{ONE_ARCHITECTURE}"} else None
    return None


@dataclass(frozen=True)
class CudaBuild:
    """A finished build of _C_cuda and what it printed."""

    library: Path
    output: str


def build_cuda(
    folder: Path, architectures: str = f"{ONE_ARCHITECTURE}-real", timeout_s: float = 900.0
) -> CudaBuild:
    """Skips where nvcc or a CUDA build of torch is missing."""
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc")
    if not torch.version.cuda:
        pytest.skip("this torch is built without CUDA")
    configured = configure(folder, f"-DCMAKE_CUDA_ARCHITECTURES={architectures}")
    assert configured.returncode == 0, configured.stdout + configured.stderr
    built = run_command(tool("ninja"), "-C", str(folder), "_C_cuda", timeout_s=timeout_s)
    assert built.returncode == 0, built.stdout + built.stderr
    return CudaBuild(folder / "_C_cuda.so", configured.stdout + built.stdout)
