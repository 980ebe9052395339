"""The CPU kernels without torch, as a program: for this machine, and for aarch64 under an emulator."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.kernels.builds import configure, tool
from tests.ops.layers import TABLE, Layer
from tests.source_tree import ROOT

_PREFIX = "aarch64-linux-gnu-"
_BUILD_S = 600.0


def needed(name: str, package: str) -> str:
    """The path of a program; skips where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: {package})")
    return found


@dataclass(frozen=True)
class HostProgram:
    """A built program and the words to put before it."""

    program: Path
    kernels: Path  # the archive that it is linked with
    before: tuple[str, ...] = ()

    def check(self, layers: list[Layer], *, timeout_s: float, before: tuple[str, ...] = ()) -> list[str]:
        """The names of what was compared over these layers; fails where any result is wrong."""
        lines = "\n".join(_line(layer) for layer in layers)
        result = run_command(
            *(before or self.before), str(self.program), timeout_s=timeout_s, standard_input=lines
        )

        assert result.returncode == 0, result.stdout[-4000:] + result.stderr
        summaries = [line.split(": ", 1) for line in result.stdout.splitlines()]
        assert all(f"{len(layers)} layers, " in summary for _, summary in summaries), result.stdout
        assert all(summary.endswith(", 0 wrong") for _, summary in summaries), result.stdout
        return [name for name, _ in summaries]


def _line(layer: Layer) -> str:
    stride, padding, dilation = layer.sizes
    sizes = (layer.N, layer.C, layer.O, layer.H, layer.W, layer.R, layer.S)
    return " ".join(str(number) for number in (*sizes, *stride, *padding, *dilation, layer.groups))


def every(step: int) -> list[Layer]:
    """Every so many layers of the operator table, over all its groups."""
    return [layer for group in TABLE.values() for layer in group][::step]


def build_native(folder: Path) -> HostProgram:
    """With the kernels that launch/setup has built, unless their sources are newer."""
    compiler = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("no C++ compiler")
    kernels = _installed_kernels()
    return _link(folder, compiler, _built_kernels(folder) if kernels is None else kernels)


def build_aarch64(folder: Path) -> HostProgram:
    """By Debian's cross compiler; static, so that the emulator needs no libraries of that machine."""
    compiler = needed(f"{_PREFIX}g++", "g++-aarch64-linux-gnu")
    emulator = needed("qemu-aarch64", "qemu-user")
    target = (
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={compiler}",
    )
    host = _link(folder, compiler, _built_kernels(folder, *target), "-static")
    return HostProgram(host.program, host.kernels, (emulator,))


def disassembler() -> str:
    """For aarch64."""
    return needed(f"{_PREFIX}objdump", "binutils-aarch64-linux-gnu")


def _installed_kernels() -> Path | None:
    """Beside a _C.so that is linked anew whenever a source changes."""
    kernels = ROOT / "kernels"
    sources = [path for folder in ("csrc", "device") for path in (kernels / folder).rglob("*")]
    newest = max(path.stat().st_mtime for path in [kernels / "CMakeLists.txt", *sources])
    built = (path for path in (ROOT / "build").glob("*/_C.so") if path.stat().st_mtime > newest)
    return next((path.with_name("libcpu_kernels.a") for path in built), None)


def _built_kernels(folder: Path, *definitions: str) -> Path:
    configured = configure(folder, "-DADDERTRAIN_CUDA=OFF", *definitions)
    assert configured.returncode == 0, configured.stdout + configured.stderr
    built = run_command(tool("ninja"), "-C", str(folder), "cpu_kernels", timeout_s=_BUILD_S)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "libcpu_kernels.a"


def _link(folder: Path, compiler: str, kernels: Path, *options: str) -> HostProgram:
    program, source = folder / "cpu_host", ROOT / "tests" / "kernels" / "cpu_host" / "main.cpp"
    warnings = ("-Wall", "-Wextra", "-Wno-uninitialized", "-Wno-maybe-uninitialized")  # GCC 12's own headers
    command = (compiler, "-std=gnu++20", "-O2", *warnings, *options, f"-I{ROOT / 'kernels'}")
    built = run_command(*command, str(source), str(kernels), "-o", str(program), timeout_s=_BUILD_S)
    assert built.returncode == 0, built.stdout + built.stderr
    return HostProgram(program, kernels)
