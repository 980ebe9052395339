"""The emulated tests find bugs: each of these, put into a copy of the kernels, makes them fail.

python -m pytest -m long tests/kernels/test_injected.py    # a compilation and a small table for each
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.kernels.emulated import EmulatedKernels, build_emulator
from tests.kernels.injected import num_mistakes
from tests.source_tree import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Bug:
    """What to replace in a file under kernels/; `at_once`: copies must happen early for it to show."""

    name: str
    path: str
    good: str
    bad: str
    at_once: bool = False


BUGS = [
    Bug("phases lost", "device/stride_phases.h", "if (scaled % stride != 0)", "if (scaled != 0)"),
    Bug("no barrier in a slab loop", "device/contract.h", "barrier();  // the slab has landed", "//"),
    Bug("wait a group short", "device/contract.h", "copy_wait<P::kStages - 2>", "copy_wait<P::kStages - 1>"),
    Bug("stage in use overwritten", "device/contract.h", "write = P::kStages - 1;", "write = 0;", True),
    Bug("a slab lost where k is split", "csrc/cuda/plan.h", "(slabs + plan.splits - 1) /", "slabs /"),
    Bug("mask of columns shifted", "device/gather.h", "mask >> (16 + s)", "mask >> (15 + s)"),
    Bug("row sums unshared", "device/contract.h", "part < kParts; ++part", "part < 1; ++part"),
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
    Bug("dY scaled and not back", "device/contract_pairs.h", ") * g_scale.back;", ");"),
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

    # In a process of its own: the emulator aborts where threads part ways or addresses are not aligned.
    order = "at once" if bug.at_once else "late"
    result = run_command(sys.executable, "-m", "tests.kernels.injected", str(library), order)

    assert result.returncode != 0, f"nothing noticed: {bug.name}"
    assert "Traceback" not in result.stderr, result.stderr
