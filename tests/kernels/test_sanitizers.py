"""The CPU kernels under the address and undefined-behaviour sanitizers: their scratch memory too."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.kernels.builds import configure, tool

pytestmark = pytest.mark.long


def _runtime(name: str) -> str:
    """Path of a library that comes with g++."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    command = (compiler, f"-print-file-name={name}")
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(path).is_absolute():
        pytest.skip(f"g++ has no {name}")
    return path


@pytest.mark.timeout(3600)  # sanitized vectors take a compiler minutes a file
def test_kernels_are_clean_under_sanitizers(tmp_path: Path) -> None:
    runtimes = f"{_runtime('libasan.so')} {_runtime('libubsan.so')} {_runtime('libstdc++.so')}"
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
    configured = configure(
        tmp_path, f"-DCMAKE_CXX_FLAGS={flags}", "-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DADDERTRAIN_CUDA=OFF"
    )
    assert configured.returncode == 0, configured.stdout + configured.stderr
    built = run_command(tool("ninja"), "-C", str(tmp_path), "_C", timeout_s=1800)
    assert built.returncode == 0, built.stdout

    result = run_command(
        *(sys.executable, "-m", "tests.kernels.sanitized", str(tmp_path / "_C.so")),
        timeout_s=1700,
        LD_PRELOAD=runtimes,
        ASAN_OPTIONS="detect_leaks=0:protect_shadow_gap=0",
    )

    assert result.returncode == 0, (result.stdout + result.stderr)[-5000:]
