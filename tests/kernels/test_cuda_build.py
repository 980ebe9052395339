"""_C_cuda is built where nvcc and a CUDA torch are, and registers its kernels; neither needs a GPU."""

import re
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.commands import run_command
from tests.kernels.builds import configure, tool
from tests.source_tree import ROOT

ONE_ARCHITECTURE = "90-real"
ALL_ARCHITECTURES = {"80-real", "86-real", "89-real", "90-real", "100-real", "120"}
BEFORE_BLACKWELL = {"80-real", "86-real", "89-real", "90"}


@dataclass(frozen=True)
class Build:
    """A finished build of _C_cuda and what it printed."""

    library: Path
    output: str


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc")
    if not torch.version.cuda:
        pytest.skip("this torch is built without CUDA")
    folder = tmp_path_factory.mktemp("cuda")
    configured = configure(folder, f"-DCMAKE_CUDA_ARCHITECTURES={ONE_ARCHITECTURE}")
    assert configured.returncode == 0, configured.stdout + configured.stderr
    built = run_command(tool("ninja"), "-C", str(folder), "_C_cuda")
    assert built.returncode == 0, built.stdout + built.stderr
    return Build(folder / "_C_cuda.so", configured.stdout + built.stdout)


def test_it_compiles_without_a_warning(build: Build) -> None:
    assert build.library.exists()
    assert f"_C_cuda is built for {ONE_ARCHITECTURE}" in build.output
    assert "warning" not in build.output.lower(), build.output


REGISTERED = """
import torch
load = torch.ops.load_library
torch.ops.load_library = lambda path: None  # not the package's own copy
import addertrain.ops
has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
names = ["addertrain::adder2d", "addertrain::adder2d_grad_input"]
assert not any(has_kernel(name, "CUDA") for name in names)
load({library!r})
assert all(has_kernel(name, "CUDA") for name in names)
assert not has_kernel("addertrain::adder2d_grad_weight", "CUDA"), "a convolution's"
"""


def test_it_loads_and_registers_without_a_gpu(build: Build) -> None:
    result = run_command(sys.executable, "-c", REGISTERED.format(library=str(build.library)))

    assert result.returncode == 0, result.stderr


def test_it_names_no_folder_of_this_machine(build: Build) -> None:
    """Apart from the search path, which an installation strips."""
    found = set(
        re.findall(
            rb"[\x20-\x7e]*" + re.escape(str(ROOT).encode()) + rb"[\x20-\x7e]*", build.library.read_bytes()
        )
    )

    assert all(text.rstrip(b":").endswith(b"/torch/lib") for text in found), found


@pytest.mark.parametrize(
    ("definition", "environment", "reason"),
    [
        ("-DADDERTRAIN_CUDA=OFF", {}, "ADDERTRAIN_CUDA is OFF"),
        ("-DADDERTRAIN_CUDA=ON", {"CUDACXX": "/nonexistent/nvcc"}, "no working nvcc"),
    ],
    ids=["not asked for", "no nvcc"],
)
def test_a_build_without_cuda_says_why(
    tmp_path: Path, definition: str, environment: dict[str, str], reason: str
) -> None:
    result = configure(tmp_path, definition, **environment)

    assert result.returncode == 0, result.stderr
    expected = reason if torch.version.cuda or "OFF" in reason else "a build without CUDA"
    (line,) = [line for line in result.stdout.splitlines() if "_C_cuda is" in line]
    assert "is not built" in line
    assert expected in line


def test_wheels_hold_every_architecture(tmp_path: Path) -> None:
    """CMake's default; `launch/setup` builds for the machine at hand."""
    if shutil.which("nvcc") is None or not torch.version.cuda:
        pytest.skip("no nvcc, or a torch without CUDA")

    result = configure(tmp_path)

    assert result.returncode == 0, result.stderr
    built_for = re.search(r"_C_cuda is built for (\S+)", result.stdout)
    assert built_for is not None, result.stdout
    assert set(built_for.group(1).split(";")) in (ALL_ARCHITECTURES, BEFORE_BLACKWELL)


def test_no_settings_fix_the_architectures() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        settings = tomllib.load(file)["tool"]["scikit-build"]

    assert "CMAKE_CUDA_ARCHITECTURES" not in settings.get("cmake", {}).get("define", {})
