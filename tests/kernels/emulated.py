"""The GPU's kernels run by an emulator on this machine's processor (tests/kernels/emulator)."""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from addertrain.ops.grouping import grad_weight_by_group
from addertrain.ops.int8 import in_words
from addertrain.ops.layout import empty_like_input
from addertrain.ops.variants_surrogate import grad_weight_by_exchange
from tests.kernels.host import TYPES, build_shared, layer_numbers, stride_numbers
from tests.ops.layers import Layer
from tests.source_tree import ROOT

_REFUSED = 1  # cudaErrorInvalidValue of the emulator's


def build_emulator(folder: Path, kernels: Path = ROOT / "kernels") -> Path:
    """emulated.cpp: every kernel of layers, its planner and its launcher, from the sources in `kernels`."""
    headers = ROOT / "tests" / "kernels" / "emulator"
    options = ("-O1", "-Wno-unknown-pragmas", f"-I{headers}")
    return build_shared("emulated.cpp", folder, *options, kernels=kernels)


def _norm_arguments(x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> list[object]:
    rows, columns = x.numel() // x.shape[1], x.shape[1]
    pointers = map(_pointer, (x, weight, bias))
    sizes = (TYPES.index(x.dtype), ctypes.c_int64(rows), columns)
    return [*sizes, *pointers, ctypes.c_double(eps), ctypes.c_bool(relu)]


def _check(code: int, refusal: str) -> None:
    """Raises RuntimeError where a launch failed, as a GPU's does."""
    assert code != _REFUSED, refusal
    if code:
        raise RuntimeError("CUDA error: unspecified launch failure")


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p | None:
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())


@dataclass(frozen=True)
class Fused:
    """What the forward's epilogue does beside the response: y = relu(response * scale + shift + residual)."""

    scale: Tensor | None = None
    shift: Tensor | None = None
    residual: Tensor | None = None
    relu: bool = False
    sums: Tensor | None = None


class EmulatedKernels:
    """`Operators` (tests/ops/implementations.py) over the emulated kernels. Results start as NaN."""

    device = "cpu"
    saturates = True

    @contextmanager
    def use(self) -> Iterator["EmulatedKernels"]:
        """As an `Implementation`: nothing has to be chosen."""
        yield self

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    @staticmethod
    def serves(layer: Layer) -> bool:
        """Whether tiles, not the direct kernel, compute this layer in float32 and 16 bits, if it is dense."""
        is_large = min(layer.C, layer.O) >= 32 * layer.groups
        return max(layer.R, layer.S) <= 16 and (layer.groups == 1 or is_large)

    def forward(
        self, layer: Layer, x: Tensor, w: Tensor, offset_free: bool = False, fused: Fused = Fused(),
        power: float = 1.0,
    ) -> Tensor:  # fmt: skip
        y = empty_like_input([layer.N, layer.O, *layer.output], x).fill_(torch.nan)
        if y.numel() == 0:
            return y
        code = self.library.emulated_forward(
            TYPES.index(x.dtype),
            layer_numbers(layer),
            stride_numbers(x, w, y),
            *(_pointer(tensor) for tensor in (x, w, y)),
            ctypes.c_bool(offset_free),
            *(_pointer(tensor) for tensor in (fused.scale, fused.shift, fused.residual)),
            ctypes.c_bool(fused.relu),
            _pointer(fused.sums),
            ctypes.c_int64(layer.groups),
            ctypes.c_double(power),
        )
        _check(code, f"no kernel serves {layer}")
        return y

    def distances(self, layer: Layer, x: Tensor, w: Tensor) -> Tensor:
        """sum |x - w| of bytes, as GPUs add them up four channels a word."""
        x, w = in_words(x), in_words(w)
        y = torch.full((layer.N, *layer.output, layer.O), -1, dtype=torch.int32).permute(0, 3, 1, 2)
        padded = replace(layer, C=x.shape[1])
        if y.numel():
            arguments = (layer_numbers(padded), stride_numbers(x, w, y), *map(_pointer, (x, w, y)))
            _check(self.library.emulated_distances(*arguments), f"no tile serves {layer}")
        return y

    def norm(
        self, x: Tensor, sums: Tensor, weight: Tensor, bias: Tensor, *, eps: float, relu: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`batch_norm_relu_of_sums` on channels-last x."""
        y = torch.full_like(x, torch.nan)
        mean, var = torch.full_like(weight, torch.nan), torch.full_like(weight, torch.nan)
        code = self.library.emulated_norm(
            *_norm_arguments(x, weight, bias, eps, relu),
            *map(_pointer, (sums, mean, var, y)),
        )
        _check(code, "no kernel serves this norm")
        return y, mean, var

    def norm_backward(
        self,
        dy: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        *,
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`batch_norm_relu_backward` on channels-last dy and x."""
        dx = torch.full_like(x, torch.nan)
        dweight, dbias = torch.full_like(weight, torch.nan), torch.full_like(weight, torch.nan)
        type_, rows, columns, *rest = _norm_arguments(x, weight, bias, eps, relu)
        code = self.library.emulated_norm_backward(
            *(type_, rows, columns, _pointer(dy), *rest),
            *map(_pointer, (mean, var, dx, dweight, dbias)),
        )
        _check(code, "no kernel serves this norm")
        return dx, dweight, dbias

    def sums_of_squares(self, tensors: Sequence[Tensor]) -> Tensor:
        """Of tensors without gaps, of any types."""
        sums = torch.full((len(tensors),), torch.nan, dtype=torch.float64)
        types = (ctypes.c_int * len(tensors))(*(TYPES.index(tensor.dtype) for tensor in tensors))
        values = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
        counts = (ctypes.c_int64 * len(tensors))(*(tensor.numel() for tensor in tensors))
        assert not self.library.emulated_squares(len(tensors), types, values, counts, _pointer(sums))
        return sums

    def grad_input(self, layer: Layer, dy: Tensor, x: Tensor, w: Tensor, power: float = 1.0) -> Tensor:
        dx = empty_like_input(x.shape, x).fill_(torch.nan)
        if dx.numel() == 0:
            return dx
        code = self.library.emulated_grad_input(
            TYPES.index(x.dtype),
            layer_numbers(layer),
            stride_numbers(dy, x, w, dx),
            *(_pointer(tensor) for tensor in (dy, x, w, dx)),
            ctypes.c_int64(layer.groups),
            ctypes.c_double(power),
        )
        _check(code, f"no kernel serves {layer}")
        return dx

    def power_grad_weight(self, layer: Layer, dy: Tensor, x: Tensor, w: Tensor, power: float) -> Tensor:
        """As GPUs compute it in float32: by the input gradient, with the roles of x and w exchanged."""

        def grad_input(dy: Tensor, x: Tensor, w: Tensor, *_: object) -> Tensor:
            pixels = Layer(x.shape[0], x.shape[1], w.shape[0], *x.shape[2:], 1, 1)
            return self.grad_input(pixels, dy, x, w, power)

        @grad_weight_by_group
        def of_group(*arguments: Any) -> Tensor:
            return grad_weight_by_exchange(*arguments, grad_input)

        return of_group(dy, x, w, *layer.sizes)
