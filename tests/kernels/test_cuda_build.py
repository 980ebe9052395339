"""_C_cuda is built where nvcc and a CUDA torch are, and registers its kernels; neither needs a GPU.

Every architecture, and no warning: pytest -m long tests/kernels/test_cuda_build.py
"""

import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from tests.commands import run_command
from tests.kernels.builds import build_cuda, configure
from tests.source_tree import ROOT

ALL_ARCHITECTURES = {"80-real", "86-real", "89-real", "90-real", "100", "120-real"}
pytestmark = pytest.mark.timeout(1000)  # nvcc on a busy machine
BEFORE_BLACKWELL = {"80-real", "86-real", "89-real", "90"}


REGISTERED = """
import torch
load = torch.ops.load_library
torch.ops.load_library = lambda path: None  # not the package's own copy
import addertrain.ops
has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
endings = ("", "_grad_input", "_with_sums", "_affine")
names = ["addertrain::adder2d" + ending for ending in endings]
names += ["addertrain::batch_norm_relu" + ending for ending in ("_of_sums", "_backward")]
assert not any(has_kernel(name, "CUDA") for name in names)
load({library!r})
assert all(has_kernel(name, "CUDA") for name in names)
assert not has_kernel("addertrain::adder2d_grad_weight", "CUDA"), "a convolution's"
"""


def test_it_loads_and_registers_without_a_gpu(cuda_library: Path) -> None:
    result = run_command(sys.executable, "-c", REGISTERED.format(library=str(cuda_library)))

    assert result.returncode == 0, result.stderr


def test_it_names_no_folder_of_this_machine(cuda_library: Path) -> None:
    """Apart from the search path, which an installation strips."""
    found = set(
        re.findall(
            rb"[\x20-\x7e]*" + re.escape(str(ROOT).encode()) + rb"[\x20-\x7e]*",
            cuda_library.read_bytes(),
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
    nvcc = shutil.which("nvcc")
    if nvcc is None or not torch.version.cuda:
        pytest.skip("no nvcc, or a torch without CUDA")

    # Not looked for, and not tried on every architecture: seconds.
    result = configure(tmp_path, f"-DCMAKE_CUDA_COMPILER={nvcc}", "-DCMAKE_CUDA_COMPILER_FORCED=ON")

    assert result.returncode == 0, result.stderr
    built_for = re.search(r"_C_cuda is built for (\S+)", result.stdout)
    assert built_for is not None, result.stdout
    assert set(built_for.group(1).split(";")) in (ALL_ARCHITECTURES, BEFORE_BLACKWELL)


def test_no_settings_fix_the_architectures() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        settings = tomllib.load(file)["tool"]["scikit-build"]

    assert "CMAKE_CUDA_ARCHITECTURES" not in settings.get("cmake", {}).get("define", {})


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_architecture_compiles(tmp_path: Path) -> None:
    """PTX of 10.0 is what GPUs start from that have no code of their own."""
    names = ";".join(sorted(ALL_ARCHITECTURES))

    build = build_cuda(tmp_path, names, timeout_s=1700)

    assert build.library.exists()
    assert "warning" not in build.output.lower(), build.output
