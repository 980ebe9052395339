"""The compiled libraries that lie in the package: where they are, and what became of loading them.

Loads none itself and knows no torch: `libraries` loads them for the operators, `addertrain --version` to see
whether they load.
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
    """Where the compiled library `name` lies; None where it was not built."""
    return next((folder / f"{name}.so" for folder in _FOLDERS if (folder / f"{name}.so").exists()), None)


def state_after(load: Callable[[Path], object], name: str) -> str:
    """What became of the library `name` when `load` was called with its path: `LOADED`, or why not."""
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
    """Which libraries serve the operators, by name and state."""
    return ", ".join(f"{name} {state}" for name, state in states.items())
