"""Runs a sanitized CPU library over the operator table: python -m tests.kernels.sanitized LIBRARY.

The sanitizers end the process at the first wrong access; wrong answers are counted.
"""

import sys

import torch

_load = torch.ops.load_library
torch.ops.load_library = lambda path: None  # type: ignore[method-assign]  # not the package's own library

from addertrain import libraries  # noqa: E402
from tests import instruction_sets  # noqa: E402
from tests.ops.implementations import COMPILED  # noqa: E402
from tests.ops.layers import TABLE  # noqa: E402
from tests.ops.test_table import forward_mistakes, grad_input_mistakes  # noqa: E402


def main(path: str) -> int:
    _load(path)
    assert "_C " in libraries.status()
    mistakes = []
    for implementation in COMPILED:
        if not instruction_sets.choose(implementation.name):
            continue
        for group in TABLE:
            print(implementation.name, group, flush=True)
            for dtype in (torch.float32, torch.bfloat16):
                mistakes += forward_mistakes(implementation, group, dtype)
                mistakes += grad_input_mistakes(implementation, group, dtype)
    print("\n".join(mistakes[:20]))
    return len(mistakes)


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1])))
