"""What an emulator gets wrong: python -m tests.kernels.injected LIBRARY late|"at once" float32|bfloat16

Prints how many results of a small table are wrong, and what a proof of a small network names, as JSON;
test_injected.py gives it libraries that hold a bug.
"""

import ctypes
import json
import sys

import torch

from addertrain.proof import prove
from tests.kernels.emulated import EmulatedKernels
from tests.ops.answers import data_of, forward_answer, grad_input_answer
from tests.ops.layers import Layer
from tests.ops.test_table import LAYOUTS, mistake
from tests.proof.emulated_operators import EmulatedOperators, small_layers

LAYERS = [
    Layer(2, 3, 10, 8, 8, 3, 3, padding=(1, 1)),  # K = 27
    Layer(2, 16, 20, 9, 8, 3, 3, (2, 2), (1, 1)),
    Layer(1, 8, 12, 11, 10, 3, 3, (3, 3), (1, 1)),
    Layer(2, 40, 72, 5, 6, 3, 3, padding=(1, 1)),  # several slabs, k split
]


def num_mistakes(emulator: EmulatedKernels) -> int:
    """Of both passes, in float32 and bfloat16, in both layouts; a launch that fails is one."""
    found: list[str | None] = []
    for dtype in (torch.float32, torch.bfloat16):
        for layer in LAYERS:
            data = data_of(layer, dtype)
            for layout, format_ in LAYOUTS.items():
                dy, x = (t.to(memory_format=format_) for t in (data.dy, data.x))
                try:
                    y, dx = emulator.forward(layer, x, data.w), emulator.grad_input(layer, dy, x, data.w)
                except RuntimeError as error:
                    found.append(str(error))
                    continue
                found.append(mistake(y, forward_answer(layer, dtype, False), layer, layout))
                found.append(mistake(dx, grad_input_answer(layer, dtype, True), layer, layout))
    return sum(one is not None for one in found)


def proof_failures(emulator: EmulatedKernels, dtype: str) -> list[tuple[str, str]]:
    """(layer, kernel) of what the proof of SmallNet names, in one type."""
    layers = small_layers(dtypes=[torch.bfloat16 if dtype == "bfloat16" else None])
    failures = prove(layers, EmulatedOperators(emulator), with_int8=True).failures
    return [(failure.names[0], failure.kernel) for failure in failures]


if __name__ == "__main__":
    library = ctypes.CDLL(sys.argv[1])
    library.set_emulator(sys.argv[2] == "at once", False)
    kernels = EmulatedKernels(library)
    print(json.dumps({"mistakes": num_mistakes(kernels), "named": proof_failures(kernels, sys.argv[3])}))
