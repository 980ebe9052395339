"""The GPU's device code, compiled for this machine's processor: tests it where no GPU is."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from addertrain.ops.layout import empty_like_input
from tests.ops.layers import Layer
from tests.source_tree import ROOT

TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_FOLDER = ROOT / "tests" / "kernels"


def build_shared(source: str, folder: Path, *options: str, kernels: Path = ROOT / "kernels") -> Path:
    """A source beside this file as a shared library; skips where there is no compiler."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = folder / f"{source}.so"
    fixed = ["-std=c++20", "-march=native", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    command = [compiler, *fixed, *options, f"-I{kernels}", str(_FOLDER / source), "-o", str(library)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return library


def compile_shared(source: str, folder: Path, *options: str) -> ctypes.CDLL:
    """Built and loaded."""
    return ctypes.CDLL(str(build_shared(source, folder, *options)))


def load_host_library(folder: Path, *, is_there: bool) -> ctypes.CDLL:
    """The direct kernels of device/direct.h, built in `folder` unless they are there."""
    source = "direct_host.cpp"
    loaded = ctypes.CDLL(str(folder / f"{source}.so" if is_there else build_shared(source, folder, "-O2")))
    loaded.similarity_of.argtypes = [ctypes.c_double, ctypes.c_double, ctypes.c_bool]
    loaded.similarity_of.restype = ctypes.c_double
    loaded.hard_tanh_of.argtypes = [ctypes.c_double]
    loaded.hard_tanh_of.restype = ctypes.c_double
    return loaded


def _numbers(*values: int) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


def layer_numbers(layer: Layer) -> ctypes.Array[ctypes.c_int64]:
    """`Layer` of device/layer.h: the sizes of one group."""
    channels, filters = layer.C // layer.groups, layer.O // layer.groups
    sizes = (layer.N, channels, layer.H, layer.W, filters, layer.R, layer.S, *layer.output)
    return _numbers(*sizes, *layer.stride, *layer.padding, *layer.dilation)


def stride_numbers(*tensors: Tensor) -> ctypes.Array[ctypes.c_int64]:
    return _numbers(*(stride for tensor in tensors for stride in tensor.stride()))


def _same_by_both_indices(
    function: Callable[..., None], layer: Layer, tensors: list[Tensor], *flags: object
) -> Tensor:
    """The last of the tensors, which `function` computes from the others."""
    *operands, result = tensors
    other = result.clone()
    for is_short, target in ((True, result), (False, other)):
        given = [*operands, target]
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in given]
        numbers = (TYPES.index(result.dtype), layer_numbers(layer), stride_numbers(*given))
        function(*numbers, *pointers, *flags, ctypes.c_bool(is_short))
    assert torch.equal(other, result), layer
    return result


class HostKernels:
    """`Operators` (tests/ops/implementations.py) over the compiled device code. Results start as NaN.

    Each is computed twice, with positions of 32 and of 64 bits, and must have the same bits.
    """

    device = "cpu"
    saturates = False

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def forward(self, layer: Layer, x: Tensor, w: Tensor, offset_free: bool = False) -> Tensor:
        y = empty_like_input([layer.N, layer.O, *layer.output], x).fill_(torch.nan)
        flags = (ctypes.c_bool(offset_free), ctypes.c_int64(layer.groups))
        return _same_by_both_indices(self.library.adder2d, layer, [x, w, y], *flags)

    def grad_input(self, layer: Layer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        dx = empty_like_input(x.shape, x).fill_(torch.nan)
        flags = (ctypes.c_int64(layer.groups),)
        return _same_by_both_indices(self.library.adder2d_grad_input, layer, [dy, x, w, dx], *flags)

    def grad_weight(self, layer: Layer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        raise NotImplementedError("the filter gradient is a convolution's")
