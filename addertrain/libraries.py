"""Finds and loads the compiled operator libraries that lie in the package, and says which are in use.

Importing this module loads them. It knows no operator: the parts that import it define theirs.
"""

from pathlib import Path

import torch

import addertrain

# An editable installation has two: the checkout's, and the one that holds the libraries.
_FOLDERS = tuple(Path(folder) for folder in addertrain.__path__)
_status: dict[str, str] = {"_C": "not loaded", "_C_cuda": "not loaded"}


def load() -> None:
    """Loads `_C`, and `_C_cuda` where this torch is built for CUDA, behind `torch.ops.addertrain`."""
    _load("_C")
    if torch.version.cuda:
        _load("_C_cuda")
    else:
        _status["_C_cuda"] = "not loaded (this torch is built without CUDA)"


def find(name: str) -> Path | None:
    """Where the compiled library `name` lies; None where it was not built."""
    return next((folder / f"{name}.so" for folder in _FOLDERS if (folder / f"{name}.so").exists()), None)


def _load(name: str) -> None:
    path = find(name)
    if path is None:
        _status[name] = "not built (install a C++ compiler, for _C_cuda nvcc too, and reinstall addertrain)"
        return
    try:
        torch.ops.load_library(path)
    except OSError as error:
        # A library built against another torch: the reference still gives right results.
        _status[name] = f"not loaded ({str(error).splitlines()[0]})"
    else:
        _status[name] = "loaded"


def is_loaded(name: str) -> bool:
    """Whether the compiled library `_C` or `_C_cuda` serves the operators."""
    return _status[name] == "loaded"


def status() -> str:
    """One line: which compiled libraries serve the operators."""
    return ", ".join(f"{name} {state}" for name, state in _status.items())


def cpu_kernels() -> str:
    """What computes on CPUs: the `AVX-512`, `AVX2`, `NEON` or `portable` kernels, or the `reference`."""
    if not is_loaded("_C"):
        return "reference"
    return {1: "AVX-512", 2: "AVX2", 3: "portable", 4: "NEON"}[torch.ops.addertrain.cpu_instruction_set()]


load()
