"""Loads the compiled operator libraries of the package, and says which are in use.

Importing this module loads them. It knows no operator; the modules that import it define theirs.
"""

import torch

from addertrain.compiled import CPU_KERNELS, LOADED, REFERENCE, WITHOUT_CUDA, in_one_line, state_after

_status: dict[str, str] = {"_C": "not loaded", "_C_cuda": "not loaded"}


def load() -> None:
    """Loads `_C`, and `_C_cuda` if torch is built for CUDA, which provide the kernels of
    `torch.ops.addertrain`.
    """
    _status["_C"] = state_after(torch.ops.load_library, "_C")
    _status["_C_cuda"] = (
        state_after(torch.ops.load_library, "_C_cuda") if torch.version.cuda else WITHOUT_CUDA
    )


def is_loaded(name: str) -> bool:
    """Whether the compiled library `_C` or `_C_cuda` is loaded."""
    return _status[name] == LOADED


def status() -> str:
    """One line that says which compiled libraries are loaded."""
    return in_one_line(_status)


def cpu_kernels() -> str:
    """The kernels used on CPUs: the `AVX-512`, `AVX2`, `NEON` or `portable` kernels, or the `reference`."""
    if not is_loaded("_C"):
        return REFERENCE
    return CPU_KERNELS[torch.ops.addertrain.cpu_instruction_set()]


load()
