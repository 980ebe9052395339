"""csrc/cpu/movement/units.h: the memory of a thread."""

import ctypes
from pathlib import Path

from tests.kernels.host import compile_shared


def test_a_thread_recovers_from_exhausted_memory(tmp_path: Path) -> None:
    """A caller may catch the error and continue with a smaller batch: the memory is asked for again."""
    library = compile_shared("memory_host.cpp", tmp_path, "-O1", "-Wno-unused-function")
    library.recovers_from_bad_alloc.restype = ctypes.c_bool

    assert library.recovers_from_bad_alloc()
