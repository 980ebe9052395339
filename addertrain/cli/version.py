"""`addertrain --version`: prints the versions in use on one line, without torch; `--full` imports all
packages.

`import torch` takes longer than everything else that the line needs. torch's version is in a file of its own,
and our libraries load once torch's library has been loaded; if they do, they also load for the operators.
"""

import ctypes
import importlib.util
from pathlib import Path
from types import ModuleType

from addertrain import __version__
from addertrain.compiled import CPU_KERNELS, LOADED, REFERENCE, WITHOUT_CUDA, find, in_one_line, state_after
from addertrain.errors import UsageError


def run(words: list[str]) -> int:
    """Prints the line, or all lines with `--full`, which imports torch and the other packages."""
    if words not in ([], ["--full"]):
        raise UsageError(
            f"--version: expected nothing or --full after it, got '{' '.join(words)}'; see addertrain --help"
        )
    if words:
        from addertrain.cli.version_full import lines

        print("\n".join(lines()))
        return 0
    folder, torch = _torch()
    states = {
        "_C": _state("_C", folder / "lib" / "libtorch_cpu.so"),
        "_C_cuda": _state("_C_cuda", folder / "lib" / "libtorch_cuda.so") if torch.cuda else WITHOUT_CUDA,
    }
    kernels = _cpu_kernels() if states["_C"] == LOADED else REFERENCE
    print(line(torch.__version__, in_one_line(states), kernels))
    return 0


def line(torch_version: str, states: str, cpu_kernels: str) -> str:
    """The line with all versions."""
    return f"addertrain {__version__} (torch {torch_version}; {states}; on CPUs: {cpu_kernels})"


def _torch() -> tuple[Path, ModuleType]:
    """The folder of torch, and its module `torch.version`, which imports nothing.

    Raises:
        ModuleNotFoundError: torch is not installed.
    """
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'torch'")
    folder = Path(found.submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location("torch.version", folder / "version.py")
    assert spec is not None, folder
    assert spec.loader is not None, folder
    version = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(version)
    return folder, version


def _state(name: str, torch_library: Path) -> str:
    """Whether our library `name` loads after the library of torch that it needs, and why not otherwise."""
    try:
        ctypes.CDLL(str(torch_library))
    except OSError as error:  # torch's own dependencies are found by `import torch` only
        return f"unknown ({str(error).splitlines()[0]}; addertrain --version --full asks torch)"
    return state_after(lambda path: ctypes.CDLL(str(path)), name)


def _cpu_kernels() -> str:
    """The instruction set of the loaded library `_C`."""
    path = find("_C")
    return CPU_KERNELS[ctypes.CDLL(str(path)).addertrain_cpu_instruction_set()]
