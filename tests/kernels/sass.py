"""Machine code of a built library: each kernel's instructions, and those of its hot loop."""

import importlib.util
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

_ARITHMETIC = re.compile(r"FADD|FFMA|HADD2|HFMA2|HMNMX2|HMMA|VABSDIFF|IDP")
_INSTRUCTION = re.compile(
    r"^\s+/\*(?P<address>[0-9a-f]{4,6})\*/\s+(?:@!?U?P\w+\s+)?(?P<opcode>[A-Z][A-Z0-9_.]*)(?P<operands>[^;]*);"
)


@dataclass(frozen=True)
class Kernel:
    """One entry point. `loop` counts the opcodes of the backward branch's range with the most arithmetic.

    `loops_inside`: those of the loops within it, which run seldom: a step's carry from channels to taps.
    `innermost`: of every loop of the kernel that contains no other.
    """

    name: str
    opcodes: Counter[str]
    loop: Counter[str]
    loops_inside: Counter[str]
    innermost: tuple[Counter[str], ...]
    registers: int
    stack_bytes: int


def disassembler() -> str:
    """cuobjdump from PATH, or the one that comes with triton."""
    found = shutil.which("cuobjdump")
    spec = importlib.util.find_spec("triton")
    if found is None and spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        found = str(bundled) if bundled.exists() else None
    if found is None:
        pytest.skip("no cuobjdump, neither in PATH nor in triton")
    return found


def architectures_of(library: Path) -> set[str]:
    """Such as "sm_90": those that a library holds machine code for."""
    return set(re.findall(r"\.(sm_\w+)\.cubin", _run(library, "--list-elf")))


def kernels_of(library: Path, name_part: str = "adder_contract") -> list[Kernel]:
    """The kernels with such names, by default the tiled ones, of a library built for one architecture."""
    usage = _run(library, "-res-usage")
    resources = {
        name: (int(registers), int(stack))
        for name, registers, stack in re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+)", usage)
    }
    found = []
    for text in re.split(r"\n\s+Function : ", _run(library, "-sass"))[1:]:
        name, _, body = text.partition("\n")
        if name_part in name:
            code = [match for line in body.splitlines() if (match := _INSTRUCTION.match(line))]
            opcodes = Counter(match["opcode"] for match in code)
            found.append(Kernel(name, opcodes, *_loops(code), *resources[name]))
    return found


@lru_cache(maxsize=8)
def _run(library: Path, option: str) -> str:
    command = [disassembler(), option, str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def count(opcodes: Counter[str], opcode: str) -> int:
    """Of an opcode with any modifiers that follow."""
    return sum(n for name, n in opcodes.items() if name == opcode or name.startswith(f"{opcode}."))


def uses_local_memory(kernel: Kernel) -> bool:
    """Whether anything lies on the stack: values without a register, or an array with a computed index."""
    return bool(kernel.stack_bytes or count(kernel.opcodes, "LDL") or count(kernel.opcodes, "STL"))


def _loops(code: list[re.Match[str]]) -> tuple[Counter[str], Counter[str], tuple[Counter[str], ...]]:
    """`loop`, `loops_inside` and `innermost` of a kernel."""
    addresses = [int(match["address"], 16) for match in code]
    loops: list[tuple[int, int]] = [(0, -1)]
    for last, match in enumerate(code):
        target = re.search(r"0x([0-9a-f]+)", match["operands"])
        if match["opcode"] == "BRA" and target and int(target[1], 16) < addresses[last]:
            loops.append((addresses.index(int(target[1], 16)), last))
    opcodes = {loop: Counter(m["opcode"] for m in code[loop[0] : loop[1] + 1]) for loop in loops}
    hot = max(loops, key=lambda loop: sum(n for name, n in opcodes[loop].items() if _ARITHMETIC.match(name)))
    inside = [loop for loop in loops[1:] if hot[0] < loop[0] and loop[1] < hot[1]]
    innermost = [
        loop
        for loop in loops[1:]
        if not any(other != loop and loop[0] <= other[0] and other[1] <= loop[1] for other in loops[1:])
    ]
    of_innermost = tuple(opcodes[loop] for loop in innermost)
    return opcodes[hot], sum((opcodes[loop] for loop in inside), Counter()), of_innermost
