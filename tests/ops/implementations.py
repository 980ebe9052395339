"""Who computes: the compiled kernels of each instruction set, the reference, and a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from addertrain.ops import library, reference, schemas
from tests.ops.layers import Layer

_INSTRUCTION_SETS = {"avx512": 1, "avx2": 2, "portable": 3}
_BEST = 0


@dataclass(frozen=True)
class Implementation:
    """One way to run the operators. `use` it around calls; skips the test where the machine lacks it."""

    name: str

    @property
    def device(self) -> str:
        return "cuda" if self.name == "cuda" else "cpu"

    @contextmanager
    def use(self) -> Iterator["Implementation"]:
        if self.name == "cuda":
            assert "_C_cuda loaded" in library.status(), library.status()
        if self.name not in _INSTRUCTION_SETS:
            yield self
            return
        if "_C loaded" not in library.status():
            pytest.skip(f"the CPU library is missing: {library.status()}")
        if not torch.ops.addertrain.use_cpu_instruction_set(_INSTRUCTION_SETS[self.name]):
            pytest.skip(f"this processor has no {self.name}")
        try:
            yield self
        finally:
            torch.ops.addertrain.use_cpu_instruction_set(_BEST)

    def forward(self, layer: Layer, x: Tensor, w: Tensor, offset_free: bool = False) -> Tensor:
        operator = reference.adder2d if self.name == "reference" else schemas.ADDER2D
        result: Tensor = operator(x, w, *layer.sizes, offset_free)
        return result

    def grad_input(self, layer: Layer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        operator = reference.adder2d_grad_input if self.name == "reference" else schemas.GRAD_INPUT
        result: Tensor = operator(dy, x, w, *layer.sizes)
        return result

    def grad_weight(self, layer: Layer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        operator = reference.adder2d_grad_weight if self.name == "reference" else schemas.GRAD_WEIGHT
        result: Tensor = operator(dy, x, w, *layer.sizes)
        return result


COMPILED = [Implementation(name) for name in _INSTRUCTION_SETS]
REFERENCE = Implementation("reference")
CUDA = Implementation("cuda")
EVERY_CPU = [*COMPILED, REFERENCE]
