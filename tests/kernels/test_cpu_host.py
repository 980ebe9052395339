"""csrc/cpu over the operator table without torch: on this machine, and NEON's kernels on an emulated one.

By default every twentieth layer runs; `-m long` runs all.
"""

import platform
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from addertrain import libraries
from tests import instruction_sets
from tests.commands import run_command
from tests.kernels.cpu_host import HostProgram, build_aarch64, build_native, disassembler, every
from tests.kernels.shared_builds import built_once

pytestmark = pytest.mark.timeout(900)  # compilers on a busy machine

BESIDE = "float64 and bytes"
FEW = 20
OLDEST = ("-cpu", "cortex-a53")  # Armv8.0: without UDOT


@pytest.fixture(scope="module")
def native(builds: Path) -> HostProgram:
    with built_once(builds, "cpu_host") as (folder, _):
        return build_native(folder)


@pytest.fixture(scope="module")
def aarch64(builds: Path) -> HostProgram:
    if platform.machine() in ("aarch64", "arm64"):
        pytest.skip("this machine is one: the native program runs NEON's kernels")
    with built_once(builds, "cpu_host_aarch64") as (folder, _):
        return build_aarch64(folder)


def _check_native(program: HostProgram, step: int) -> None:
    names = program.check(every(step), timeout_s=850 if step > 1 else 3500)

    assert names[-2:] == ["portable", BESIDE]
    if libraries.is_loaded("_C") and instruction_sets.limit() is None:
        assert instruction_sets.NUMBERS[names[0]] == torch.ops.addertrain.cpu_instruction_set()


def test_every_instruction_set_of_this_machine(native: HostProgram) -> None:
    _check_native(native, FEW)


def test_neon_emulated(aarch64: HostProgram) -> None:
    assert aarch64.check(every(FEW), timeout_s=850) == ["neon", "portable", BESIDE]


def test_neon_runs_on_the_oldest_processors_with_it(aarch64: HostProgram) -> None:
    before = (*aarch64.before, *OLDEST)
    assert aarch64.check(every(90), timeout_s=850, before=before) == ["neon", "portable", BESIDE]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_instruction_set_of_this_machine_over_the_whole_table(native: HostProgram) -> None:
    _check_native(native, 1)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("processor", [(), OLDEST], ids=["newest", "oldest"])
def test_neon_emulated_over_the_whole_table(aarch64: HostProgram, processor: tuple[str, ...]) -> None:
    before = (*aarch64.before, *processor)
    assert aarch64.check(every(1), timeout_s=3500, before=before) == ["neon", "portable", BESIDE]


def _loop_of(code: str, name: str) -> Counter[str]:
    """Opcodes of the inner loop with the most arithmetic in the function whose name holds `name`."""
    function = re.search(rf"^[0-9a-f]+ <[^\n]*{name}[^\n]*>:\n(.+?)(?:\n\n|\Z)", code, re.M | re.S)
    assert function, f"no function {name}"
    lines = re.findall(r"^\s*([0-9a-f]+):\s+(\S+)(.*)$", function[1], re.M)
    addresses = [int(address, 16) for address, _, _ in lines]
    loops: list[Counter[str]] = [Counter()]
    for last, (_, opcode, operands) in enumerate(lines):
        target = re.search(r"\b([0-9a-f]+) <", operands)
        if opcode.startswith(("b.", "cbnz")) and target and int(target[1], 16) in addresses[:last]:
            body = [one for _, one, _ in lines[addresses.index(int(target[1], 16)) : last + 1]]
            if not any(one.startswith(("b.", "cb", "tb")) for one in body[:-1]):
                loops.append(Counter(body))
    return max(loops, key=lambda loop: sum(loop[one] for one in ("fmin", "fminnm", "fmla")))


_PRODUCTS = {"false": 1, "true": 2}
"""FMAs of an element in a list's tile, without the filter gradient and with it."""


def test_neon_loops_hold_one_of_each_instruction_for_four_elements(aarch64: HostProgram) -> None:
    """Forward: minimum and FMA. Input gradient: difference, two bounds and FMA; one more FMA for the filter
    gradient."""
    result = run_command(disassembler(), "-d", "-C", "--no-show-raw-insn", str(aarch64.kernels))
    _, _, code = result.stdout.partition("neon.cpp.o:")
    tiles = ("sliding_block<3, 2, 4>", "sliding_tile<3, 2, 8>", "sliding_tile<5, 2, 8>")
    for name in ("spin_forward<4, 2>", *tiles):
        loop = _loop_of(code, name)
        assert loop["fmin"] == loop["fmla"] > 0, (name, loop)
        assert loop["fadd"] + loop["fsub"] + loop["fcmgt"] + loop["bl"] == 0, (name, loop)
    lists = {rf"list_tile<[^\n]*FarTerms, {has_dw}, 4>": products for has_dw, products in _PRODUCTS.items()}
    for name, products in {"spin_grad_input<4, 2>": 1, **lists}.items():
        loop = _loop_of(code, name)
        assert loop["fsub"] == loop["fminnm"] == loop["fmaxnm"] > 0, (name, loop)
        assert loop["fmla"] == products * loop["fsub"], (name, loop)
        assert loop["fadd"] + loop["fcmgt"] + loop["bl"] == 0, (name, loop)
