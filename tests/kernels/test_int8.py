"""csrc/cpu/int8/distances.h: every width of vpsadbw gives the same integers."""

import ctypes
from pathlib import Path

import pytest
import torch

from tests.kernels.host import compile_shared

WIDTHS = ("portable", "avx2", "avx512")
PITCHES = (64, 128, 576, 4608)
GCC_HEADERS = ("-Wno-uninitialized", "-Wno-maybe-uninitialized")  # GCC 12 warns of its own (bug 105593)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder: Path = tmp_path_factory.mktemp("int8")
    loaded = compile_shared("int8_host.cpp", folder, "-O2", *GCC_HEADERS)
    loaded.byte_tile.restype = ctypes.c_bool
    return loaded


@pytest.mark.parametrize("width", WIDTHS)
def test_sums_of_differences(library: ctypes.CDLL, width: str) -> None:
    for pitch in PITCHES:
        x, w = (torch.randint(0, 256, (4, pitch), dtype=torch.uint8) for _ in range(2))
        sums = torch.zeros(4, 4, dtype=torch.int32)
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (x, w)]
        last = (ctypes.c_int64(pitch), ctypes.c_void_p(sums.data_ptr()))
        if not library.byte_tile(WIDTHS.index(width), *pointers, *last):
            pytest.skip(f"this processor has no {width}")

        assert torch.equal(
            sums, (x.int().unsqueeze(1) - w.int().unsqueeze(0)).abs().sum(2, dtype=torch.int32)
        )
