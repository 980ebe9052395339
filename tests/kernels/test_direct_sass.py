"""What the direct kernels are made of, on sm_90: read from the machine code, no GPU needed.

They compute depthwise layers and other small groups, float64, and powers in 16 bits.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernels.sass import Kernel, count, kernels_of, uses_local_memory

pytestmark = pytest.mark.timeout(1000)  # nvcc on a busy machine

SLOTS = {
    "forward float32": 13.5, "forward 16 bits": 17.75, "grad_input float32": 22.0, "grad_input 16 bits": 24.0,
    "power forward float32": 16.25, "power forward 16 bits": 18.5,
    "offset-free power forward float32": 19.5, "offset-free power forward 16 bits": 21.25,
    "power grad_input float32": 26.25, "power grad_input 16 bits": 28.25,
}  # fmt: skip
"""Issue slots a tap in the loop over a row of a depthwise filter, as docs/cuda.md lists them; the loop over
the channels of a group takes fewer."""
ROOM = 1.03
"""Another nvcc may place an instruction more or less."""
_NAME = re.compile(
    r"adder_direct(?P<grad>_grad_input)?_kernelI[fd](?P<type>13__nv_bfloat16|6__half|f|d)"
    r"N\w+?(?P<element>PowerSimilarity|PowerSlope|Similarity|HardTanh)\w*?E(?P<index>[il])EEv"
)
_TYPES = {"d": "float64", "f": "float32", "6__half": "16 bits", "13__nv_bfloat16": "16 bits"}


@dataclass(frozen=True)
class Direct:
    """A kernel as its mangled name spells it; `is_short`: with positions of 32 bits."""

    kernel: Kernel
    label: str
    type: str
    is_power: bool
    is_offset_free_power: bool
    is_grad: bool
    is_short: bool

    @property
    def taps(self) -> list[tuple[int, int]]:
        """(taps, issue slots) of each innermost loop that reads x, or dY, and w for every tap."""
        loops = [loop for loop in self.kernel.innermost if count(loop, "LDG") >= 2]
        return [(count(loop, "LDG") // 2, sum(loop.values())) for loop in loops]


def direct_of(kernel: Kernel) -> Direct:
    found = _NAME.search(kernel.name)
    assert found is not None, kernel.name
    type_, is_power = _TYPES[found["type"]], found["element"].startswith("Power")
    is_offset_free_power = is_power and "ILb1E" in kernel.name
    words = ["offset-free"] * is_offset_free_power + ["power"] * is_power
    words += ["grad_input" if found["grad"] else "forward", type_]
    is_grad, is_short = found["grad"] is not None, found["index"] == "i"
    return Direct(kernel, " ".join(words), type_, is_power, is_offset_free_power, is_grad, is_short)


@pytest.fixture(scope="module")
def kernels(cuda_library: Path) -> list[Direct]:
    return [direct_of(kernel) for kernel in kernels_of(cuda_library, "adder_direct")]


@pytest.fixture(scope="module")
def short(kernels: list[Direct]) -> list[Direct]:
    """Those that serve all but huge tensors, in the types of training."""
    return [direct for direct in kernels if direct.is_short and direct.type != "float64"]


def test_every_type_and_element_is_there(kernels: list[Direct], short: list[Direct]) -> None:
    assert {direct.label for direct in short} == set(SLOTS)
    assert len(kernels) == 2 * (len(short) + 4)  # float64 in both passes, with and without a power


def test_no_direct_kernel_touches_local_memory(kernels: list[Direct]) -> None:
    for direct in kernels:
        assert not uses_local_memory(direct.kernel), direct.kernel.name


def test_short_positions_are_divided_in_place(short: list[Direct]) -> None:
    """A subroutine divides those of 64 bits, and all that is alive has to survive its call."""
    for direct in short:
        assert not count(direct.kernel.opcodes, "CALL"), direct.label


def test_a_tap_is_a_difference_and_a_sum(short: list[Direct]) -> None:
    for direct in [direct for direct in short if not direct.is_power]:
        for loop in [loop for loop in direct.kernel.innermost if count(loop, "LDG") >= 2]:
            taps = count(loop, "LDG") // 2
            if direct.is_grad:
                assert (loop["FADD"], loop["FFMA"]) == (taps, taps), direct.label
            else:  # up to two more where an offset-free response is not compiled apart
                assert 2 * taps <= loop["FADD"] <= 4 * taps, direct.label


def test_a_tap_of_a_power_is_a_logarithm_and_an_exponential(short: list[Direct]) -> None:
    """Two of each where |w|^p is added."""
    for direct in [direct for direct in short if direct.is_power]:
        for loop in [loop for loop in direct.kernel.innermost if count(loop, "LDG") >= 2]:
            powers = count(loop, "LDG") // 2 * (2 if direct.is_offset_free_power else 1)
            assert loop["MUFU.LG2"] == loop["MUFU.EX2"] == powers, direct.label
            assert count(loop, "MUFU") == 2 * powers, direct.label


def test_few_slots_go_elsewhere(short: list[Direct]) -> None:
    for direct in short:
        assert len(direct.taps) >= 2, direct.label  # one loop of depthwise layers, one of other groups
        for taps, slots in direct.taps:
            assert slots / taps <= ROOM * SLOTS[direct.label], (
                f"{direct.label}: {slots / taps} issue slots a tap"
            )
