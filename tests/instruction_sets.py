"""The instruction sets of our CPU kernels, and what a run of the tests that is limited to one sets.

`launch/test --instruction-set avx2` imitates a processor without AVX-512: oneDNN and ATen read their limits
from the environment, and every Python process of the run starts with `tests/limited/sitecustomize.py`, which
limits our own kernels. Who chooses a set for a while goes back to the limit afterwards.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.source_tree import ROOT

NUMBERS = {"avx512": 1, "avx2": 2, "neon": 4, "portable": 3}
NAMES = tuple(NUMBERS)  # the better one first
WITHOUT_VNNI = "avx512 without VNNI"  # differs from avx512 in distances of bytes only
NAMES_FOR_BYTES = (*NAMES, WITHOUT_VNNI)
VARIABLE = "ADDERTRAIN_TESTS_INSTRUCTION_SET"
_BEST = 0
_LIBRARIES = {
    "avx512": {},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "neon": {},
    "portable": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
}


def libraries_limited_to(name: str) -> dict[str, str]:
    """What limits oneDNN and ATen in a process's environment."""
    return _LIBRARIES[name]


def kernels_limited_to(name: str) -> dict[str, str]:
    """What limits our kernels in a process and all that it starts."""
    path = os.pathsep.join(filter(None, (str(ROOT / "tests" / "limited"), os.environ.get("PYTHONPATH"))))
    return {VARIABLE: str(NUMBERS[name]), "PYTHONPATH": path}


def limit() -> str | None:
    """What this run of the tests is limited to; None where it is not."""
    number = os.environ.get(VARIABLE)
    return None if number is None else {str(NUMBERS[name]): name for name in NAMES}[number]


def is_here(name: str) -> bool:
    """Whether this processor has the set; asked in another process, for this one may not import torch."""
    code = "import addertrain.libraries, torch; print(torch.ops.addertrain.use_cpu_instruction_set"
    code += f"({NUMBERS[name]}))"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return asked.stdout.strip() == "True"


def choose(name: str) -> bool:
    """Uses a set from now on; False where the processor, or the limit of this run, lacks it."""
    import torch

    most = limit()
    rank = NAMES.index("avx512" if name == WITHOUT_VNNI else name)
    if most is not None and rank < NAMES.index(most):
        return False
    number = 5 if name == WITHOUT_VNNI else NUMBERS[name]
    chosen: bool = torch.ops.addertrain.use_cpu_instruction_set(number)
    return chosen


def restore() -> None:
    """Goes back to what this run is limited to, or to the processor's best."""
    import torch

    most = limit()
    assert torch.ops.addertrain.use_cpu_instruction_set(NUMBERS[most] if most else _BEST)


@contextmanager
def chosen(name: str) -> Iterator[None]:
    """Uses a set for a while; skips the test where it cannot be had."""
    import pytest

    from addertrain import libraries

    if not libraries.is_loaded("_C"):
        pytest.skip(f"the CPU library is missing: {libraries.status()}")
    if not choose(name):
        pytest.skip(
            f"this processor has no {name}" if limit() is None else f"limited to {limit()}, no {name}"
        )
    try:
        yield
    finally:
        restore()
