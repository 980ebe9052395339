"""Runs the CPU kernels on tensors that border on forbidden memory: a read or write outside ends the process.

python -m tests.ops.guarded [GROUP ...]; prints the layer before it runs it.
"""

import ctypes
import itertools
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from addertrain.ops import schemas
from addertrain.ops.int8_norm import adder2d_int8_norm, pack_int8
from tests import instruction_sets
from tests.ops.answers import data_of
from tests.ops.implementations import COMPILED, Implementation
from tests.ops.layers import TABLE, Layer

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
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


def run(implementation: Implementation, layer: Layer, layout: torch.memory_format, is_at_end: bool) -> None:
    data = data_of(layer, torch.float32)
    x, dy = (t.to(memory_format=layout) for t in (data.x, data.dy))
    with guarded(x, is_at_end) as x, guarded(data.w, is_at_end) as w, guarded(dy, is_at_end) as dy:
        implementation.forward(layer, x, w, offset_free=True)
        implementation.grad_input(layer, dy, x, w)
        implementation.forward(layer, x.relu_(), w)
        schemas.RECTIFIED_GRAD_INPUT(dy, x, w, *layer.sizes)


def run_bytes(num_filters: int, is_at_end: bool) -> None:
    """An 8-bit layer and its norm, with as many numbers and residuals as it has filters."""
    generator = torch.Generator().manual_seed(num_filters)

    def bytes_(*shape: int) -> Tensor:
        drawn = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return drawn.to(memory_format=torch.channels_last)

    x, w, residual = bytes_(1, 16, 3, 3), bytes_(num_filters, 16, 1, 1), bytes_(1, num_filters, 3, 3)
    sizes, numbers = ([1, 1], [0, 0], [1, 1]), torch.ones(num_filters)
    with (
        guarded(x, is_at_end) as x,
        guarded(numbers, is_at_end) as scale,
        guarded(numbers, is_at_end) as shift,
        guarded(residual, is_at_end) as residual,
    ):
        adder2d_int8_norm(x, w, pack_int8(w), *sizes, scale=scale, shift=shift, residual=residual)


def main(groups: list[str]) -> None:
    for name in instruction_sets.NAMES_FOR_BYTES:
        if not instruction_sets.choose(name):
            continue
        for num_filters, is_at_end in itertools.product((3, 8, 16, 24, 40, 100), (True, False)):
            print(name, num_filters, "filters of bytes", flush=True)
            run_bytes(num_filters, is_at_end)
    layers = [layer for group in groups or TABLE for layer in TABLE[group] if layer.N > 0]
    layouts = (torch.contiguous_format, torch.channels_last)
    for implementation in COMPILED:
        if not instruction_sets.choose(implementation.name):
            continue
        for layer, layout, is_at_end in itertools.product(layers, layouts, (True, False)):
            print(
                implementation.name, layer, layout, "at the end" if is_at_end else "at the start", flush=True
            )
            run(implementation, layer, layout, is_at_end)


if __name__ == "__main__":
    main(sys.argv[1:])
