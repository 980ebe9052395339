"""What the kernel of depthwise layers is made of, on sm_90: read from the machine code, no GPU needed."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernels.sass import Kernel, count, kernels_of, uses_local_memory

pytestmark = pytest.mark.timeout(1000)  # nvcc on a busy machine

_NAME = re.compile(
    r"adder_depthwise_kernelI(?P<type>13__nv_bfloat16|6__half|f)"
    r"N\w+?(?P<op>DepthwiseSlope|DepthwiseResponseILb(?P<is_offset_free>[01])E)\w*?"
    r"ELi(?P<taps>\d)ELi(?P<stride>\d)EEEv"
)
_ROWS, _CHANNELS = 4, 4  # of a thread's results
MOST_REGISTERS = {3: 128, 5: 128, 7: 168}
"""For four blocks of 128 threads on a multiprocessor, with 7x7 filters for three."""
AROUND = {
    "response 3x3": (76, 128), "response 5x5": (94, 162), "response 7x7": (110, 195),
    "response 3x3, stride 2": (65, 106), "response 5x5, stride 2": (83, 144),
    "response 7x7, stride 2": (101, 176),
    "input gradient 3x3": (62, 96), "input gradient 5x5": (80, 129), "input gradient 7x7": (96, 162),
    "input gradient 3x3, stride 2": (42, 59), "input gradient 5x5, stride 2": (53, 79),
    "input gradient 7x7, stride 2": (60, 95),
}  # fmt: skip
"""Instructions around a row of pixels in float32 and in 16 bits, as docs/cuda.md lists them: loads inside and
at the border, conversions, addresses and branches."""
ROOM = 1.03
"""Another nvcc may place an instruction more or less."""


@dataclass(frozen=True)
class Depthwise:
    """A kernel as its mangled name spells it."""

    kernel: Kernel
    is_grad: bool
    is_offset_free: bool
    is_float32: bool
    taps: int
    stride: int

    @property
    def label(self) -> str:
        name = f"{'input gradient' if self.is_grad else 'response'} {self.taps}x{self.taps}"
        return name if self.stride == 1 else f"{name}, stride {self.stride}"

    @property
    def columns(self) -> int:
        """Of a thread's results."""
        return 4 if self.stride == 1 and not self.is_grad else 2

    @property
    def pixels(self) -> int:
        """Of a row under a thread's results; with a stride, every other result of a gradient sees one."""
        reach = self.taps - 1 + (self.columns - 1) * (1 if self.is_grad else self.stride)
        return reach // (self.stride if self.is_grad else 1) + 1

    @property
    def elements(self) -> int:
        """One for each tap in a row of filters, of all results."""
        return _ROWS * self.columns * _CHANNELS * self.taps // (self.stride if self.is_grad else 1)

    @property
    def row(self) -> Counter[str]:
        """The loop over the rows of pixels."""
        (loop,) = self.kernel.innermost
        return loop


def depthwise_of(kernel: Kernel) -> Depthwise:
    found = _NAME.search(kernel.name)
    assert found is not None, kernel.name
    is_grad, is_offset_free = found["op"] == "DepthwiseSlope", found["is_offset_free"] == "1"
    taps, stride = int(found["taps"]), int(found["stride"])
    return Depthwise(kernel, is_grad, is_offset_free, found["type"] == "f", taps, stride)


@pytest.fixture(scope="module")
def kernels(cuda_library: Path) -> list[Depthwise]:
    return [depthwise_of(kernel) for kernel in kernels_of(cuda_library, "adder_depthwise")]


def test_every_filter_stride_and_type_is_there(kernels: list[Depthwise]) -> None:
    assert {one.label for one in kernels} == set(AROUND)
    assert len(kernels) == 3 * 3 * 2 * 3  # types, filters, strides; responses of both kinds, and gradients


def test_registers_are_enough_and_few(kernels: list[Depthwise]) -> None:
    """For as many threads as docs/cuda.md says, and without local memory."""
    for one in kernels:
        assert not uses_local_memory(one.kernel), one.kernel.name
        assert one.kernel.registers <= MOST_REGISTERS[one.taps], one.kernel.name


def test_a_tap_is_two_or_three_float_instructions(kernels: list[Depthwise]) -> None:
    for one in kernels:
        if one.is_grad:
            assert one.row["FADD.SAT"] == one.elements, one.kernel.name
            assert (count(one.row, "FADD"), count(one.row, "FFMA")) == (one.elements, 2 * one.elements)
        else:
            assert count(one.row, "FADD") == (3 if one.is_offset_free else 2) * one.elements, one.kernel.name


def test_a_thread_loads_four_channels_at_a_time(kernels: list[Depthwise]) -> None:
    """Each pixel once for all of its taps, by another load at the border; a tap once for a row of results."""
    for one in kernels:
        vector = "LDG.E.128" if one.is_float32 else "LDG.E.64"
        assert one.row[vector] == count(one.row, "LDG") == 2 * one.pixels, one.kernel.name
        assert one.row["LDS.128"] == count(one.row, "LDS") == _ROWS * one.taps, one.kernel.name


def test_few_slots_go_elsewhere(kernels: list[Depthwise]) -> None:
    for one in kernels:
        arithmetic = (3 if one.is_grad or one.is_offset_free else 2) * one.elements
        around = sum(one.row.values()) - arithmetic - _ROWS * one.taps
        allowed = AROUND[one.label][0 if one.is_float32 else 1]
        assert around <= ROOM * allowed, f"{one.kernel.name}: {around} instructions"
