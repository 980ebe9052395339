"""Who computes: the compiled kernels of each instruction set, the reference, and a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
import torch
from torch import Tensor

from addertrain import libraries
from addertrain.ops import reference, schemas
from tests import instruction_sets
from tests.ops.layers import Layer


class Operators(Protocol):
    """Something that has the operators. Tensors may come from the CPU, and answers go there."""

    @property
    def device(self) -> str: ...

    @property
    def saturates(self) -> bool:
        """Whether HT is formed from (w + 1)/2 and x/2, and 16 bits on tensor cores: see docs/cuda.md."""

    def forward(self, layer: Layer, x: Tensor, w: Tensor, offset_free: bool = False) -> Tensor: ...

    def grad_input(self, layer: Layer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor: ...

    def grad_weight(self, layer: Layer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Implementation:
    """One way to run the operators. `use` it around calls; skips the test where the machine lacks it."""

    name: str

    @property
    def device(self) -> str:
        return "cuda" if self.name == "cuda" else "cpu"

    @property
    def saturates(self) -> bool:
        return self.name == "cuda"

    @contextmanager
    def use(self) -> Iterator["Implementation"]:
        if self.name == "cuda":
            assert "_C_cuda loaded" in libraries.status(), libraries.status()
        with instruction_sets.chosen(self.name) if self.name in instruction_sets.NAMES else nullcontext():
            yield self

    def forward(self, layer: Layer, x: Tensor, w: Tensor, offset_free: bool = False) -> Tensor:
        operator = reference.adder2d if self.name == "reference" else schemas.ADDER2D
        return self._run(operator, x, w, *layer.sizes, offset_free)

    def grad_input(self, layer: Layer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        operator = reference.adder2d_grad_input if self.name == "reference" else schemas.GRAD_INPUT
        return self._run(operator, dy, x, w, *layer.sizes)

    def grad_weight(self, layer: Layer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        operator = reference.adder2d_grad_weight if self.name == "reference" else schemas.GRAD_WEIGHT
        return self._run(operator, dy, x, w, *layer.sizes)

    def _run(self, operator: Any, *arguments: Any) -> Tensor:
        if self.device == "cpu":
            result: Tensor = operator(*arguments)
            return result
        moved = [a.to(self.device) if isinstance(a, Tensor) else a for a in arguments]
        answer: Tensor = operator(*moved)
        return answer.cpu()


COMPILED = [Implementation(name) for name in instruction_sets.NAMES]
REFERENCE = Implementation("reference")
CUDA = Implementation("cuda")
EVERY_CPU = [*COMPILED, REFERENCE]


def ways(*cpu_dtypes: torch.dtype, cuda_dtypes: tuple[torch.dtype, ...]) -> list[Any]:
    """(implementation, dtype) for parametrize: float32 everywhere, other types on one instruction set.

    float64 and 16 bits are the same code around every instruction set's kernels.
    """
    return [
        *((one, torch.float32) for one in EVERY_CPU),
        *((one, dtype) for one in (COMPILED[0], REFERENCE) for dtype in cpu_dtypes),
        *(pytest.param(CUDA, dtype, marks=pytest.mark.gpu) for dtype in cuda_dtypes),
    ]


def name_of(way: Any) -> str:
    """The name of an implementation or a dtype, for test ids."""
    return way.name if isinstance(way, Implementation) else str(way).removeprefix("torch.")
