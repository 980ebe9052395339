"""The emulated tests and a run's proof find bugs: each of these, in a copy of the kernels, is one to them.

python -m pytest -m long tests/kernels/test_injected.py    # a compilation and a small table for each
"""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.kernels.emulated import EmulatedKernels, build_emulator
from tests.kernels.injected import num_mistakes
from tests.source_tree import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class Bug:
    """What to replace in a file under kernels/; `at_once`: copies must happen early for it to show.

    `only`: the one kernel that it sits in, where it sits in one; `spares`: a layer whose forward is right.
    """

    name: str
    path: str
    good: str
    bad: str
    at_once: bool = False
    only: str = ""
    spares: str = ""

    @property
    def dtype(self) -> str:
        """A type whose kernels it sits in."""
        return "bfloat16" if "pairs" in self.path else "float32"


BUGS = [
    Bug(
        "phases lost",
        "device/stride_phases.h",
        "if (scaled % stride != 0)",
        "if (scaled != 0)",
        only="adder2d_grad_input",
    ),
    Bug("no barrier in a slab loop", "device/contract.h", "barrier();  // the slab has landed", "//"),
    Bug("wait a group short", "device/contract.h", "copy_wait<P::kStages - 2>", "copy_wait<P::kStages - 1>"),
    Bug(
        "stage in use overwritten",
        "device/contract.h",
        "write = P::kStages - 1;",
        "write = 0;",
        True,
        spares="stem",
    ),
    Bug(
        "a slab lost where k is split",
        "csrc/cuda/plan.h",
        "(slabs + plan.splits - 1) /",
        "slabs /",
        spares="stem",
    ),
    Bug("mask of columns shifted", "device/gather.h", "mask >> (16 + s)", "mask >> (15 + s)"),
    Bug(
        "row sums unshared",
        "device/contract.h",
        "part < kParts; ++part",
        "part < 1; ++part",
        only="adder2d_grad_input",
    ),
    Bug(
        "tail of k unpadded",
        "csrc/cuda/plan.h",
        "round_up(taps * p.channels, tile.steps)",
        "taps * p.channels",
    ),
    Bug(
        "half a word of x",
        "device/contract_pairs.h",
        "h < 2; ++h) Ops::mma(a_sum",
        "h < 1; ++h) Ops::mma(a_sum",
    ),
    Bug("another's column", "device/contract_pairs.h", "place.row == j ?", "place.quad == j ?"),
    Bug(
        "dY scaled and not back",
        "device/contract_pairs.h",
        ") * g_scale.back;",
        ");",
        only="adder2d_grad_input",
    ),
    Bug(
        "no wait for 16 bits",
        "device/contract_pairs.h",
        "copy_wait<P::kStages - 2>",
        "copy_wait<P::kStages - 1>",
    ),
]


def test_without_a_bug_there_is_no_mistake(emulator: EmulatedKernels) -> None:
    assert num_mistakes(emulator) == 0


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_is_found(bug: Bug, tmp_path: Path) -> None:
    kernels = shutil.copytree(ROOT / "kernels", tmp_path / "kernels")
    source = (kernels / bug.path).read_text(encoding="utf-8")
    assert bug.good in source
    (kernels / bug.path).write_text(source.replace(bug.good, bug.bad), encoding="utf-8")
    library = build_emulator(tmp_path, kernels)

    # In a process of its own: the library stays loaded, and a wrong one may write anywhere.
    order = "at once" if bug.at_once else "late"
    command = (sys.executable, "-m", "tests.kernels.injected", str(library), order, bug.dtype)
    result = run_command(*command, timeout_s=900.0)  # emulated, beside other work

    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["mistakes"] > 0, f"the table does not notice: {bug.name}"
    assert found["named"], f"the proof does not notice: {bug.name}"
    assert [bug.spares, "adder2d"] not in found["named"]
    if bug.only:
        assert {kernel.split(",")[0] for _, kernel in found["named"]} == {bug.only}
