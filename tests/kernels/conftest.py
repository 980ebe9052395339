"""The device code compiled for the host, once for all tests."""

import ctypes

import pytest

from tests.kernels.builds import CudaBuild, build_cuda
from tests.kernels.emulated import EmulatedKernels, compile_emulator
from tests.kernels.host import HostKernels, compile_host_library


@pytest.fixture(scope="session")
def host_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compile_host_library(tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="session")
def host_kernels(host_library: ctypes.CDLL) -> HostKernels:
    return HostKernels(host_library)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> EmulatedKernels:
    return EmulatedKernels(compile_emulator(tmp_path_factory.mktemp("emulator")))


@pytest.fixture(scope="session")
def cuda_build(tmp_path_factory: pytest.TempPathFactory) -> CudaBuild:
    return build_cuda(tmp_path_factory.mktemp("cuda"))
