"""What the tiled kernels' hot loops are made of, on sm_90: read from the machine code, no GPU needed."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from addertrain.bench.roofline import TILES
from tests.kernels.sass import Kernel, count, kernels_of, uses_local_memory
from tests.source_tree import ROOT

pytestmark = pytest.mark.timeout(1000)  # nvcc on a busy machine

# Issue slots an element (half a packed word in 16 bits) by kernel, as docs/cuda.md's predictions count them.
SLOTS = {
    f"{pass_} {dtype} {tile.rows}x{tile.columns}": tile.slots
    for (dtype, pass_), tiles in TILES.items()
    for tile in tiles
}
REGISTERS_OF_A_MULTIPROCESSOR = 65536
POWER_SLOTS = {"forward": 5.38, "grad_input": 6.38}
"""With the p-th power of the distance, in the loop over a slab's steps (docs/cuda.md)."""
ROOM = 1.03
"""Another nvcc may place an instruction more or less."""


@dataclass(frozen=True)
class Tile:
    """A kernel as its mangled name spells it."""

    kernel: Kernel
    sizes: list[int]  # BM, BN, BK, TM, TN, stages, blocks of words; BM, BN, WM, WN, stages, blocks of pairs
    is_grad: bool
    is_vector: bool
    type: str

    @property
    def label(self) -> str:
        return f"{self.pass_} {self.type} {self.sizes[0]}x{self.sizes[1]}"

    @property
    def is_pairs(self) -> bool:
        return self.type in ("float16", "bfloat16")

    @property
    def pass_(self) -> str:
        return "grad_input" if self.is_grad else "forward"

    @property
    def threads(self) -> int:
        rows, columns = self.sizes[:2]
        if self.is_pairs:
            return rows // self.sizes[2] * (columns // self.sizes[3]) * 32
        return rows // self.sizes[3] * (columns // self.sizes[4])

    @property
    def elements(self) -> int:
        """Of one thread in one slab."""
        return self.sizes[2] * self.sizes[3] * (1 if self.is_pairs else self.sizes[4])


def tile_of(kernel: Kernel) -> Tile:
    sizes = [int(number) for number in re.findall(r"Li(\d+)E", kernel.name)]
    flags = [flag == "1" for flag in re.findall(r"Lb([01])E", kernel.name)]
    if "PairTile" in kernel.name:
        type_ = "bfloat16" if "bfloat16" in kernel.name else "float16"
        return Tile(kernel, sizes, flags[0], flags[1], type_)
    type_ = "uint8" if "DistanceU8" in kernel.name else "power" if "Power" in kernel.name else "float32"
    return Tile(kernel, sizes, "GradInputF32" in kernel.name, flags[0], type_)


@pytest.fixture(scope="module")
def tiles(cuda_library: Path) -> list[Tile]:
    return [tile for tile in map(tile_of, kernels_of(cuda_library)) if tile.type not in ("uint8", "power")]


@pytest.fixture(scope="module")
def power_tiles(cuda_library: Path) -> list[Tile]:
    return [tile for tile in map(tile_of, kernels_of(cuda_library)) if tile.type == "power"]


def test_four_bytes_are_one_instruction(cuda_library: Path) -> None:
    tiles = [tile for tile in map(tile_of, kernels_of(cuda_library)) if tile.type == "uint8"]

    assert len(tiles) == 2  # channels in words of their own, and any
    for tile in tiles:
        assert count(tile.kernel.loop, "VABSDIFF4") == tile.elements, tile.label
        assert not uses_local_memory(tile.kernel)


def test_every_tile_is_there(tiles: list[Tile]) -> None:
    assert {tile.label for tile in tiles if tile.is_vector} == set(SLOTS)


def test_no_kernel_touches_local_memory(tiles: list[Tile]) -> None:
    for tile in tiles:
        assert not uses_local_memory(tile.kernel), tile.label


def test_no_result_hangs_on_an_order(cuda_library: Path) -> None:
    """No kernel has an atomic, in memory or shared memory: every sum has one order."""
    kernels = kernels_of(cuda_library, "")

    assert {"adder_split", "adder_statistics", "adder_norm_gradient_sums", "adder_scale", "adder_direct"} <= {
        part for kernel in kernels for part in re.findall(r"adder_[a-z_]+?(?=_kernel)", kernel.name)
    }
    for kernel in kernels:
        atomics = [opcode for opcode in kernel.opcodes if opcode.startswith(("ATOM", "RED"))]
        assert not [opcode for opcode in atomics if not opcode.startswith("REDUX")], kernel.name


def test_no_source_takes_memory_or_waits() -> None:
    """Workspaces come from torch's allocator, and a launch never waits for the device: graphs capture all."""
    for path in [*(ROOT / "kernels" / "csrc" / "cuda").iterdir(), *(ROOT / "kernels" / "device").iterdir()]:
        source = path.read_text(encoding="utf-8")
        assert not re.findall(r"cudaMalloc|cudaMemcpy|Synchronize|atomic[A-Z]|<<<.*, 0>>>", source), path.name


def test_an_element_is_two_float_instructions(tiles: list[Tile]) -> None:
    for tile in [tile for tile in tiles if not tile.is_pairs]:
        loop, elements = tile.kernel.loop, tile.elements
        if tile.is_grad:
            assert (loop["FADD.SAT"], loop["FFMA"]) == (elements, elements), tile.label
        else:
            assert loop["FADD"] == 2 * elements, tile.label


def test_two_16_bit_elements_are_an_instruction_and_sums_are_the_tensor_cores(tiles: list[Tile]) -> None:
    for tile in [tile for tile in tiles if tile.is_pairs]:
        loop, elements = tile.kernel.loop, tile.elements
        if not tile.is_grad:
            assert count(loop, "HMNMX2") == elements // 2, tile.label
        else:
            assert loop["HADD2.SAT"] == elements // 2, tile.label
        sums_of_a = tile.sizes[2] // 8 * 2
        assert count(loop, "HMMA") == elements // 8 + sums_of_a, tile.label


def test_shared_memory_is_read_16_bytes_at_a_time(tiles: list[Tile]) -> None:
    for tile in [tile for tile in tiles if not tile.is_pairs and tile.is_vector]:
        rows, _, steps, per_row, per_column = tile.sizes[:5]
        sums_of_g = steps // (tile.threads // (rows // 4)) if tile.is_grad else 0
        expected = steps * (per_row + per_column) // 4 + sums_of_g
        assert tile.kernel.loop["LDS.128"] == expected, tile.label
    for tile in [tile for tile in tiles if tile.is_pairs]:
        positions, columns = tile.sizes[2:4]
        reads_of_a = positions // 8 * (1 if tile.is_grad else 9)
        assert tile.kernel.loop["LDS.128"] <= columns // 8 + reads_of_a, tile.label


def test_few_slots_go_elsewhere(tiles: list[Tile]) -> None:
    for tile in [tile for tile in tiles if tile.is_vector]:
        slots = sum(tile.kernel.loop.values()) / tile.elements
        assert slots <= ROOM * SLOTS[tile.label], f"{tile.label}: {slots:.3f} issue slots an element"


def test_a_power_is_a_logarithm_and_an_exponential(power_tiles: list[Tile]) -> None:
    """And nothing else of the special function unit, in a loop of one step after the other."""
    assert sorted(tile.pass_ for tile in power_tiles) == 5 * ["forward"] + 5 * ["grad_input"]
    for tile in power_tiles:
        elements = tile.elements // tile.sizes[2]  # of one step
        (loop,) = [loop for loop in tile.kernel.innermost if loop["MUFU.LG2"]]
        assert loop["MUFU.LG2"] == loop["MUFU.EX2"] == loop["FMUL"] == elements, tile.label
        assert count(loop, "MUFU") == 2 * elements, tile.label
        sums = ("FADD", "FFMA") if tile.is_grad else ("FADD",)
        assert sum(loop[opcode] for opcode in sums) == 2 * elements, tile.label
        if tile.is_grad:  # the sign
            assert elements <= loop["LOP3.LUT"] <= elements + 4, tile.label


def test_few_slots_of_a_power_go_elsewhere(power_tiles: list[Tile]) -> None:
    for tile in power_tiles:
        (loop,) = [loop for loop in tile.kernel.innermost if loop["MUFU.LG2"]]
        slots = sum(loop.values()) * tile.sizes[2] / tile.elements
        assert slots <= ROOM * POWER_SLOTS[tile.pass_], f"{tile.label}: {slots:.3f} issue slots an element"


def test_no_power_touches_local_memory(power_tiles: list[Tile]) -> None:
    for tile in power_tiles:
        assert not uses_local_memory(tile.kernel), tile.label


def test_registers_leave_room_for_the_blocks_that_are_meant(
    tiles: list[Tile], power_tiles: list[Tile]
) -> None:
    for tile in [*tiles, *power_tiles]:
        blocks = tile.sizes[-1]
        granted = -(-tile.kernel.registers // 8) * 8 * tile.threads * blocks
        assert granted <= REGISTERS_OF_A_MULTIPROCESSOR, f"{tile.label}: {tile.kernel.registers} registers"
