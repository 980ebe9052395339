"""Runs the CPU kernels on tensors that border on forbidden memory: a read or write outside ends the process.

python -m tests.ops.guarded [GROUP ...]; prints the layer before it runs it.
"""

import ctypes
import itertools
import mmap
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from addertrain.ops import norm, norm_residual, schemas, variants_power  # noqa: F401  they define operators
from addertrain.ops.int8 import adder2d_int8, adder2d_int8_packed
from addertrain.ops.int8_norm import adder2d_int8_norm, pack_int8, quantise_int8
from addertrain.ops.int8_pool import max_pool_int8, sum_pixels_int8
from addertrain.ops.int16 import conv2d_int16, integer_filters, pack_int16
from addertrain.optim import squares  # noqa: F401
from tests import instruction_sets
from tests.ops.answers import data_of
from tests.ops.implementations import COMPILED, Implementation
from tests.ops.layers import TABLE, Layer

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
SMALL = ("rows", "whole inputs", "small groups", "large groups")
"""The parts of the table for lists and powers, which have walks of their own."""
_NO_ACCESS = 0
_PAGE = mmap.PAGESIZE


@contextmanager
def guarded(tensor: Tensor, is_at_end: bool) -> Iterator[Tensor]:
    """A copy of a dense tensor, in its layout, at the end or at the beginning of what may be read."""
    num_bytes = tensor.numel() * tensor.element_size()
    body = (num_bytes + _PAGE - 1) // _PAGE * _PAGE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    base = _LIBC.mmap(None, body + 2 * _PAGE, _NO_ACCESS, flags, -1, 0)
    assert base != ctypes.c_void_p(-1).value, "mmap failed"
    assert _LIBC.mprotect(base + _PAGE, body, mmap.PROT_READ | mmap.PROT_WRITE) == 0
    start = base + _PAGE + (body - num_bytes if is_at_end else 0)
    flat = torch.frombuffer((ctypes.c_char * num_bytes).from_address(start), dtype=tensor.dtype)
    yield flat.as_strided(tensor.shape, tensor.stride()).copy_(tensor)
    _LIBC.munmap(base, body + 2 * _PAGE)


@contextmanager
def all_guarded(is_at_end: bool, *tensors: Tensor) -> Iterator[list[Tensor]]:
    """`guarded` for each of them."""
    with ExitStack() as stack:
        yield [stack.enter_context(guarded(tensor, is_at_end)) for tensor in tensors]


def run(implementation: Implementation, layer: Layer, layout: torch.memory_format, is_at_end: bool) -> None:
    data = data_of(layer, torch.float32)
    x, dy = (t.to(memory_format=layout) for t in (data.x, data.dy))
    with all_guarded(is_at_end, x, data.w, dy) as (x, w, dy):
        implementation.forward(layer, x, w, offset_free=True)
        implementation.grad_input(layer, dy, x, w)
        implementation.forward(layer, x.relu_(), w)
        schemas.RECTIFIED_GRAD_INPUT(dy, x, w, *layer.sizes)


def run_small(layer: Layer, layout: torch.memory_format, is_at_end: bool) -> None:
    """Both gradients by lists, a power of the distance, and the filter gradient of small groups."""
    data = data_of(layer, torch.float32, behind_relu=True)
    x, dy = (t.to(memory_format=layout) for t in (data.x, data.dy))
    with all_guarded(is_at_end, x, data.w, dy) as (x, w, dy):
        if layer.groups == 1:
            schemas.LIST_GRADIENTS(dy, x, w, *layer.sizes)
        elif max(layer.C, layer.O) <= 8 * layer.groups:
            torch.ops.addertrain.grouped_grad_weight(dy, x, w, *layer.sizes)
        variants_power.POWER(x, w, *layer.sizes, True, 1.5)
        variants_power.POWER_GRAD_INPUT(dy, x, w, *layer.sizes, 1.5)
        variants_power.POWER_GRAD_WEIGHT(dy, x, w, *layer.sizes, 1.5)


def run_norms(num_channels: int, is_at_end: bool) -> None:
    """Both norms and their gradients, and sums of squares."""
    generator = torch.Generator().manual_seed(num_channels)
    numbers = torch.randn(3, num_channels, generator=generator)
    images = torch.randn(3, 2, 3, 5, num_channels, generator=generator).permute(0, 1, 4, 2, 3)
    operators, eps = torch.ops.addertrain, 1e-5
    with all_guarded(is_at_end, *images, *numbers[:2]) as (x, residual, dy, weight, bias):
        _, *moments = operators.batch_norm_relu(x, weight, bias, eps, True)
        with all_guarded(is_at_end, *moments) as (mean, var):
            operators.batch_norm_relu_backward(dy, x, weight, bias, mean, var, eps, True)
        results = operators.batch_norm_residual_relu(x, residual, weight, bias, eps)
        with all_guarded(is_at_end, *results) as (y, mean, var):
            operators.batch_norm_residual_relu_backward(dy, y, x, weight, mean, var, eps)
        operators.sums_of_squares([x, weight])


def run_bytes(num_filters: int, is_at_end: bool) -> None:
    """An 8-bit layer and its norm, with as many numbers and residuals as it has filters; then what surrounds
    such layers: pooling, quantisation, layers in groups, and a convolution of 16 bits.
    """
    generator = torch.Generator().manual_seed(num_filters)

    def bytes_(*shape: int) -> Tensor:
        drawn = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return drawn.to(memory_format=torch.channels_last)

    x, w, residual = bytes_(1, 16, 3, 3), bytes_(num_filters, 16, 1, 1), bytes_(1, num_filters, 3, 3)
    sizes, numbers = ([1, 1], [0, 0], [1, 1]), torch.ones(num_filters)
    with all_guarded(is_at_end, x, w, numbers, numbers, residual) as (x, w, scale, shift, residual):
        packed = pack_int8(w)
        adder2d_int8_norm(x, w, packed, *sizes, scale=scale, shift=shift, residual=residual)
        adder2d_int8_packed(x, w, packed, *sizes)
        max_pool_int8(residual, [3, 2], [2, 1], [1, 1])
        sum_pixels_int8(residual)
        with all_guarded(is_at_end, bytes_(num_filters, 1, 3, 3)) as (each,):
            adder2d_int8(residual, each, [1, 1], [1, 1], [1, 1])
        integers, _ = integer_filters(w.float())
        with all_guarded(is_at_end, x.float(), integers) as (floats, integers):
            quantise_int8(floats, 0.5)
            packed = pack_int16(integers)
            conv2d_int16(floats, integers, packed, *sizes[:2], factor=1.0, scale=scale, shift=shift, low=3)


def main(groups: list[str]) -> None:
    places = {True: "at the end", False: "at the start"}
    for name in instruction_sets.NAMES_FOR_BYTES:
        if not instruction_sets.choose(name):
            continue
        for num_filters, is_at_end in itertools.product((3, 8, 16, 24, 40, 100), places):
            print(name, num_filters, "filters of bytes", places[is_at_end], flush=True)
            run_bytes(num_filters, is_at_end)
    layers = [layer for group in groups or TABLE for layer in TABLE[group] if layer.N > 0]
    small = [layer for group in groups or SMALL for layer in TABLE[group] if layer.N > 0]
    layouts = (torch.contiguous_format, torch.channels_last)
    for implementation in COMPILED:
        if not instruction_sets.choose(implementation.name):
            continue
        for layer, layout, is_at_end in itertools.product(layers, layouts, places):
            print(implementation.name, layer, layout, places[is_at_end], flush=True)
            run(implementation, layer, layout, is_at_end)
        for layer, layout, is_at_end in itertools.product(small, layouts, places):
            print(implementation.name, "lists and powers", layer, layout, places[is_at_end], flush=True)
            run_small(layer, layout, is_at_end)
        for num_channels, is_at_end in itertools.product((1, 3, 8, 17, 40, 130), places):
            print(implementation.name, num_channels, "channels of norms", places[is_at_end], flush=True)
            run_norms(num_channels, is_at_end)


if __name__ == "__main__":
    main(sys.argv[1:])
