"""CPU kernels stay inside their tensors."""

import sys

import pytest

from addertrain import libraries
from tests.commands import run_command


def test_kernels_stay_inside_their_tensors() -> None:
    """On tensors that end, or begin, at the border of readable memory."""
    if "_C loaded" not in libraries.status():
        pytest.skip(f"the CPU library is missing: {libraries.status()}")

    result = run_command(sys.executable, "-m", "tests.ops.guarded")

    last = result.stdout.splitlines()[-1:]
    assert result.returncode == 0, f"exit code {result.returncode} in {last}\n{result.stderr[-2000:]}"
