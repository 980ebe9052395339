"""The device code compiled for the host, and the CUDA library, once for all tests and workers at most."""

import ctypes
from pathlib import Path

import pytest

from tests.kernels.builds import build_cuda, installed_cuda_library
from tests.kernels.emulated import EmulatedKernels, build_emulator
from tests.kernels.host import HostKernels, load_host_library
from tests.kernels.shared_builds import built_once


@pytest.fixture(scope="session")
def builds(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where builds lie; a folder of this run's own where pytest keeps no cache."""
    cache = getattr(request.config, "cache", None)
    return tmp_path_factory.mktemp("builds") if cache is None else cache.mkdir("addertrain_builds")


@pytest.fixture(scope="session")
def host_library(builds: Path) -> ctypes.CDLL:
    with built_once(builds, "host") as (folder, is_there):
        return load_host_library(folder, is_there=is_there)


@pytest.fixture(scope="session")
def host_kernels(host_library: ctypes.CDLL) -> HostKernels:
    return HostKernels(host_library)


@pytest.fixture(scope="session")
def emulator(builds: Path) -> EmulatedKernels:
    with built_once(builds, "emulator") as (folder, is_there):
        library = folder / "emulated.cpp.so" if is_there else build_emulator(folder)
        return EmulatedKernels(ctypes.CDLL(str(library)))


@pytest.fixture(scope="session")
def cuda_library(builds: Path) -> Path:
    """_C_cuda for one architecture, of these sources."""
    if (installed := installed_cuda_library()) is not None:
        return installed
    with built_once(builds, "cuda") as (folder, is_there):
        return folder / "_C_cuda.so" if is_there else build_cuda(folder).library
