"""The upper limit of this processor: loops of the kernels' own instructions that only use registers."""

from dataclasses import dataclass

import torch

from addertrain.bench.timing import clock
from addertrain.errors import RunError

_VARIANTS = 4  # tile shapes in kernels/csrc/cpu/ceilings.h
_ROUNDS = 7
_ITERATIONS = 200_000


@dataclass(frozen=True)
class Ceilings:
    """1e9 elements a second of one core."""

    forward: float
    grad_input: float


def measure() -> Ceilings:
    """The best round of the best tile shape for each pass.

    Raises:
        RunError: without the compiled CPU library.
    """
    if not hasattr(torch.ops.addertrain, "cpu_ceiling_spin"):
        raise RunError(
            "bench: expected the compiled CPU library, got none; install a C++ compiler and run launch/setup"
        )
    return Ceilings(_best(is_forward=True), _best(is_forward=False))


def _best(*, is_forward: bool) -> float:
    spin = torch.ops.addertrain.cpu_ceiling_spin
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # processor time: the loop runs on one core whatever the setting
    try:
        best = 0.0
        for variant in list(range(_VARIANTS)) * _ROUNDS:
            start = clock()
            elements = spin(is_forward, variant, _ITERATIONS)
            best = max(best, elements / (clock() - start))
    finally:
        torch.set_num_threads(threads)
    return best / 1e9
