"""The proof of a GPU's kernels, run on the emulator: right ones pass, a wrong one is named where it sits.

tests/kernels/test_injected.py puts bugs into the kernels' source.
"""

import pytest
import torch
from torch import Tensor

from addertrain.proof import ProvenLayer, prove
from tests.kernels.conftest import builds, emulator
from tests.kernels.emulated import EmulatedKernels
from tests.proof.emulated_operators import EmulatedOperators, grouped_layers, small_layers

__all__ = ["builds", "emulator"]  # fixtures


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_right_kernels_pass(emulator: EmulatedKernels, dtype: torch.dtype | None) -> None:
    layers = small_layers(dtypes=[dtype], layouts=(True, False))

    outcome = prove(layers, EmulatedOperators(emulator), with_int8=dtype is None)

    assert not outcome.failures, "\n".join(map(str, outcome.failures))
    assert outcome.num_proven == len(layers) == 8


def test_right_powers_pass(emulator: EmulatedKernels) -> None:
    outcome = prove(small_layers(), EmulatedOperators(emulator), with_powers=True)

    assert not outcome.failures, "\n".join(map(str, outcome.failures))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_right_kernels_of_groups_pass(emulator: EmulatedKernels, dtype: torch.dtype | None) -> None:
    layers = grouped_layers(dtype)

    outcome = prove(layers, EmulatedOperators(emulator), with_powers=True)

    assert not outcome.failures, "\n".join(map(str, outcome.failures))
    assert {layer.groups for layer in layers} == {12, 4, 1, 2}


class _WrongAtOneLayer(EmulatedOperators):
    """One output of one operator is off by a hundredth and a quarter, at the layer of 40 filters."""

    def __init__(self, emulator: EmulatedKernels, wrong: str) -> None:
        super().__init__(emulator)
        self.wrong = wrong

    def _off(self, name: str, layer: ProvenLayer, result: Tensor) -> Tensor:
        if name == self.wrong and layer.O == 40:
            last = (-1,) * result.dim()
            result[last] = 1.01 * result[last] + 0.25
        return result

    def forward(self, layer: ProvenLayer, x: Tensor, w: Tensor) -> Tensor:
        return self._off("adder2d", layer, super().forward(layer, x, w))

    def power(self, layer: ProvenLayer, x: Tensor, w: Tensor, p: float) -> Tensor:
        return self._off("adder2d_power", layer, super().power(layer, x, w, p))

    def grad_weight(self, layer: ProvenLayer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        return self._off("adder2d_grad_weight", layer, super().grad_weight(layer, dy, x, w))

    def distances(self, layer: ProvenLayer, x: Tensor, w: Tensor) -> Tensor:
        distances = super().distances(layer, x, w)
        return distances + 1 if self.wrong == "adder2d_int8" and layer.O == 40 else distances

    def with_sums(self, layer: ProvenLayer, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        y, sums = super().with_sums(layer, x, w)
        return y, self._off("adder2d_with_sums", layer, sums)


@pytest.mark.parametrize(
    "wrong", ["adder2d", "adder2d_grad_weight", "adder2d_with_sums", "adder2d_int8", "adder2d_power"]
)
def test_the_layer_and_the_kernel_of_a_wrong_number_are_named(emulator: EmulatedKernels, wrong: str) -> None:
    wrong_kernels = _WrongAtOneLayer(emulator, wrong)
    outcome = prove(small_layers(), wrong_kernels, with_int8=True, with_powers=wrong == "adder2d_power")

    assert {(one.names, one.kernel) for one in outcome.failures} == {(("whole",), wrong)}
    assert "expected" in outcome.failures[0].error


class _Restless(EmulatedOperators):
    """The second call of an operator gives other bits: a number within its tolerance, but another one."""

    calls = 0

    def forward(self, layer: ProvenLayer, x: Tensor, w: Tensor) -> Tensor:
        self.calls += 1
        y = super().forward(layer, x, w)
        return y if self.calls % 2 else torch.nextafter(y, torch.full_like(y, torch.inf))


def test_bits_that_change_from_run_to_run_are_a_failure(emulator: EmulatedKernels) -> None:
    outcome = prove(small_layers(), _Restless(emulator))

    assert {one.kernel for one in outcome.failures} == {"adder2d"}
    assert {one.error for one in outcome.failures} == {"two runs gave different bits"}


class _Broken(EmulatedOperators):
    """A GPU that the library holds no code for."""

    def grad_input(self, layer: ProvenLayer, dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        raise RuntimeError("addertrain: expected a GPU of compute capability 8.0 or later\nmore of it")


def test_a_kernel_that_raises_ends_the_proof_with_its_first_line(emulator: EmulatedKernels) -> None:
    outcome = prove(small_layers(), _Broken(emulator))

    (failure,) = outcome.failures
    assert outcome.num_proven == 1
    assert (failure.names, failure.kernel) == (("stem",), "adder2d_grad_input")
    assert failure.error == "it raised: addertrain: expected a GPU of compute capability 8.0 or later"
