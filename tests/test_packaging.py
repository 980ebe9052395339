"""What gets installed: dependencies, the contents of wheel and sdist, life without compiled libraries."""

import importlib.util
import re
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.commands import run_command
from tests.source_tree import ROOT, imports, python_files

# Distributions whose modules have another name.
DISTRIBUTION_OF = {"yaml": "pyyaml", "sklearn": "scikit-learn", "PIL": "pillow"}
# Imported by other packages of ours, not by us: torch.utils.tensorboard needs it.
USED_INDIRECTLY = {"tensorboard"}
OPTIONAL = ("deepspeed", "ffcv", "matplotlib")


def _project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project: dict[str, Any] = tomllib.load(file)["project"]
    return project


def _required() -> dict[str, Requirement]:
    requirements = [Requirement(line) for line in _project()["dependencies"]]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_dependencies_are_what_the_package_imports() -> None:
    modules = {found.module.split(".")[0] for path in python_files() for found in imports(path)}
    modules -= {"addertrain", *sys.stdlib_module_names, *OPTIONAL, "numba", "llvmlite"}
    imported = {canonicalize_name(DISTRIBUTION_OF.get(module, module)) for module in modules}

    assert imported | USED_INDIRECTLY == set(_required())


def test_constraints_pin_every_requirement_inside_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    asked = [Requirement(line) for line in _project()["dependencies"]]
    for extra in ("dev", "docs", "deepspeed", "ffcv", "report"):
        asked += [Requirement(line) for line in _project()["optional-dependencies"][extra]]

    assert all(re.fullmatch(r"==[^*,]+", str(pin.specifier)) for pin in pins)
    for requirement in asked:
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


@pytest.fixture(scope="module")
def pure_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a machine without a C++ compiler."""
    if importlib.util.find_spec("scikit_build_core") is None:
        pytest.skip("scikit-build-core is not installed (it comes with the dev extra)")
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index")
    result = run_command(*pip, "--wheel-dir", str(folder), ".", CXX="/nonexistent/c++")
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_wheel_holds_the_package_alone(pure_wheel: Path) -> None:
    with zipfile.ZipFile(pure_wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(
            next(name for name in names if name.endswith("entry_points.txt"))
        ).decode()
    modules = {str(path.relative_to(ROOT)) for path in python_files()} | {"addertrain/py.typed"}
    others = {name for name in names - modules if ".dist-info/" not in name}

    assert modules <= names
    assert not others, f"not part of the package: {sorted(others)}"
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "addertrain = addertrain.cli:main" in entry_points
    assert pure_wheel.name.split("-")[2:4] == ["py3", "none"], "one wheel for every Python"


WITHOUT_LIBRARIES = """
import sys, warnings
sys.meta_path = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
sys.path[:] = [{folder!r}] + [path for path in sys.path if path not in ("", {root!r})]
import addertrain, torch
from addertrain import libraries
from addertrain.ops import functional
assert addertrain.__file__.startswith({folder!r}), addertrain.__file__
assert "_C not built" in libraries.status(), libraries.status()
x, w = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
with warnings.catch_warnings(record=True) as caught:
    for _ in range(3):
        y = functional.adder2d(x, w, padding=1)
    y.sum().backward()
assert sum("reference" in str(one.message) for one in caught) == 1, [str(one.message) for one in caught]
columns = torch.nn.functional.unfold(x, 3, padding=1)
expected = -(w.flatten(1).unsqueeze(2) - columns.unsqueeze(1)).abs().sum(2).view(2, 4, 8, 8)
torch.testing.assert_close(y, expected)
"""


def test_without_libraries_the_reference_serves_and_says_so_once(pure_wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(pure_wheel) as archive:
        archive.extractall(tmp_path)

    result = run_command(sys.executable, "-c", WITHOUT_LIBRARIES.format(folder=str(tmp_path), root=str(ROOT)))

    assert result.returncode == 0, result.stderr


def test_source_distribution_holds_the_kernels(tmp_path: Path) -> None:
    pytest.importorskip("scikit_build_core")
    code = f"from scikit_build_core.build import build_sdist; print(build_sdist({str(tmp_path)!r}))"

    result = run_command(sys.executable, "-c", code)

    assert result.returncode == 0, result.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    listing = run_command("tar", "tzf", str(archive)).stdout.splitlines()
    names = {name.partition("/")[2] for name in listing}
    assert {"kernels/CMakeLists.txt", "addertrain/__init__.py", "pyproject.toml", "LICENSE"} <= names
    assert not [
        name for name in names if name.startswith((".venv", "build/", "runs/", "data/")) or ".so" in name
    ]


@pytest.mark.long
def test_wheel_with_a_compiler_holds_the_cpu_library(tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index")

    result = run_command(*pip, "--wheel-dir", str(tmp_path), ".", CMAKE_ARGS="-DADDERTRAIN_CUDA=OFF")

    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
    assert libraries == ["addertrain/_C.so"]
