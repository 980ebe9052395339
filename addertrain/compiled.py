"""The compiled libraries of the package: their paths, and whether they load.

This module loads none and does not import torch: `libraries` loads them for the operators, `addertrain
--version` to test them.
"""

from collections.abc import Callable
from pathlib import Path

import addertrain

LOADED = "loaded"
WITHOUT_CUDA = "not loaded (this torch is built without CUDA)"
REFERENCE = "reference"
"""What computes on CPUs where no library does."""
CPU_KERNELS = {1: "AVX-512", 2: "AVX2", 3: "portable", 4: "NEON"}
"""The kernels for CPUs, by the number of their instruction set in `_C`."""

# An editable installation has two: the checkout's, and the one that holds the libraries.
_FOLDERS = tuple(Path(folder) for folder in addertrain.__path__)


def find(name: str) -> Path | None:
    """The path of the compiled library `name`; None if it was not built."""
    return next((folder / f"{name}.so" for folder in _FOLDERS if (folder / f"{name}.so").exists()), None)


def state_after(load: Callable[[Path], object], name: str) -> str:
    """Calls `load` with the path of the library `name`; returns `LOADED`, or why it did not load."""
    path = find(name)
    if path is None:
        return "not built (install a C++ compiler, for _C_cuda nvcc too, and reinstall addertrain)"
    try:
        load(path)
    except OSError as error:
        # A library built against another torch: the reference still gives right results.
        return f"not loaded ({str(error).splitlines()[0]})"
    return LOADED


def in_one_line(states: dict[str, str]) -> str:
    """The states of the libraries on one line."""
    return ", ".join(f"{name} {state}" for name, state in states.items())
