"""The same right answers on every processor that this one can be: our kernels x what oneDNN and ATen may use.

A cell is a process: libraries read their limits once, and a fault in one must not take this process along.
"""

import itertools
import sys

import pytest

from tests import instruction_sets
from tests.commands import run_command
from tests.processors.cell_checks import SHARE

LIBRARIES = ("AVX2", "unlimited")
CELLS = list(itertools.product(instruction_sets.NAMES, LIBRARIES))
# The norms' and the bytes' own tests are short enough to run whole.
FILES = ("tests/processors/cell_checks.py", "tests/nn/test_fused_norm.py", "tests/ops/test_int8.py")


@pytest.mark.timeout(400)  # ten seconds of processor time each, on a machine that others use
@pytest.mark.parametrize(("kernels", "libraries"), CELLS)
def test_a_cell_gives_right_answers(kernels: str, libraries: str) -> None:
    with instruction_sets.chosen(kernels):  # skips the cell where this machine lacks it
        environment = instruction_sets.kernels_limited_to(kernels)
    if libraries == "AVX2":
        environment |= instruction_sets.libraries_limited_to("avx2")
    environment[SHARE] = f"{CELLS.index((kernels, libraries))}/{len(CELLS)}"
    # pytest's name of a norm's test ends with the set's.
    only = " and ".join(f"not {name}" for name in instruction_sets.NAMES if name != kernels)

    command = (sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "-k", only, *FILES)
    result = run_command(*command, timeout_s=380.0, **environment)

    assert result.returncode == 0, (
        f"kernels {kernels}, libraries {libraries}: exit code {result.returncode}\n"
        f"{result.stdout[-6000:]}{result.stderr[-6000:]}"
    )
