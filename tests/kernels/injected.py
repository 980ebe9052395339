"""Runs a small table on an emulator library: python -m tests.kernels.injected LIBRARY late|"at once"

Exits with the number of wrong results; test_injected.py gives it libraries that hold a bug.
"""

import ctypes
import sys

import torch

from tests.kernels.emulated import EmulatedKernels
from tests.ops.answers import data_of, forward_answer, grad_input_answer
from tests.ops.layers import Layer
from tests.ops.test_table import LAYOUTS, mistake

LAYERS = [
    Layer(2, 3, 10, 8, 8, 3, 3, padding=(1, 1)),  # K = 27
    Layer(2, 16, 20, 9, 8, 3, 3, (2, 2), (1, 1)),
    Layer(1, 8, 12, 11, 10, 3, 3, (3, 3), (1, 1)),
    Layer(2, 40, 72, 5, 6, 3, 3, padding=(1, 1)),  # several slabs, k split
]


def num_mistakes(emulator: EmulatedKernels) -> int:
    """Of both passes, in float32 and bfloat16, in both layouts."""
    found: list[str | None] = []
    for dtype in (torch.float32, torch.bfloat16):
        for layer in LAYERS:
            data = data_of(layer, dtype)
            for layout, format_ in LAYOUTS.items():
                dy, x = (t.to(memory_format=format_) for t in (data.dy, data.x))
                y, dx = emulator.forward(layer, x, data.w), emulator.grad_input(layer, dy, x, data.w)
                found.append(mistake(y, forward_answer(layer, dtype, False), layer, layout))
                found.append(mistake(dx, grad_input_answer(layer, dtype, True), layer, layout))
    return sum(one is not None for one in found)


if __name__ == "__main__":
    library = ctypes.CDLL(sys.argv[1])
    library.set_emulator(sys.argv[2] == "at once", False)
    sys.exit(num_mistakes(EmulatedKernels(library)))
