"""Kernels of architectures that have instructions of their own: their machine code, no GPU needed.

sm_100 packs two float32 values; sm_120f has maxima of four bytes, and no sum of their differences.
"""

import re
import shutil
from pathlib import Path

import pytest

from addertrain.bench.roofline import PACKED_TILES
from tests.commands import run_command
from tests.kernels.sass import kernels_of, uses_local_memory
from tests.kernels.shared_builds import built_once
from tests.kernels.test_sass import REGISTERS_OF_A_MULTIPROCESSOR, Tile, tile_of
from tests.source_tree import ROOT

pytestmark = pytest.mark.timeout(1000)  # nvcc on a busy machine

ARCHITECTURE = "100"
SLOTS = {
    f"{pass_} float32 {tile.rows}x{tile.columns}": tile.slots
    for pass_, tiles in PACKED_TILES.items()
    for tile in tiles
}
MOST_SLOTS_OF_THE_FORWARD = 1.15
ROOM = 1.03
"""Another nvcc may place an instruction more or less."""


def compile_cubin(name: str, folder: Path, architecture: str, since: tuple[int, int] = (12, 8)) -> Path:
    """csrc/cuda/`name`.cu for one architecture; skips where nvcc does not know it, or is before `since`."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc")
    known = run_command(nvcc, "--list-gpu-code")
    if f"sm_{architecture.rstrip('af')}" not in known.stdout.split():
        pytest.skip(f"nvcc does not know sm_{architecture} (CUDA 12.8 is the first that knows sm_100)")
    release = re.search(r"release (\d+)\.(\d+)", run_command(nvcc, "--version").stdout)
    assert release is not None
    if tuple(map(int, release.groups())) < since:
        pytest.skip(f"nvcc {release[1]}.{release[2]} cannot: needs {since[0]}.{since[1]}")
    kernels = ROOT / "kernels"
    cubin = folder / f"{name}.cubin"
    command = [nvcc, "-std=c++20", "-O3", f"-arch=sm_{architecture}", "-cubin", f"-I{kernels}"]
    command += ["-o", str(cubin), str(kernels / "csrc" / "cuda" / f"{name}.cu")]
    result = run_command(*command, timeout_s=900)
    assert result.returncode == 0, result.stderr
    return cubin


@pytest.fixture(scope="module")
def tiles(builds: Path) -> list[Tile]:
    names = ("forward_f32", "grad_input_f32")
    with built_once(builds, f"sm_{ARCHITECTURE}") as (folder, is_there):
        cubins = [
            folder / f"{name}.cubin" if is_there else compile_cubin(name, folder, ARCHITECTURE)
            for name in names
        ]
    return [tile_of(kernel) for cubin in cubins for kernel in kernels_of(cubin)]


def slots(tile: Tile) -> float:
    """Issue slots an element, without the loop that carries from channels to taps."""
    loop, seldom = tile.kernel.loop, tile.kernel.loops_inside
    return (sum(loop.values()) - sum(seldom.values())) / tile.elements


def test_every_tile_is_there(tiles: list[Tile]) -> None:
    assert {tile.label for tile in tiles if tile.is_vector} == set(SLOTS)


def test_two_elements_of_the_forward_are_two_instructions(tiles: list[Tile]) -> None:
    """x - w of two columns, and the sum with the absolute values of both as modifiers."""
    for tile in [tile for tile in tiles if not tile.is_grad]:
        assert tile.kernel.loop["FADD2"] == tile.elements, tile.label
        assert not {"FADD", "FFMA"} & tile.kernel.loop.keys(), tile.label


def test_two_elements_of_the_gradient_are_three_instructions(tiles: list[Tile]) -> None:
    for tile in [tile for tile in tiles if tile.is_grad]:
        loop = tile.kernel.loop
        assert (loop["FADD.SAT"], loop["FFMA2"]) == (tile.elements, tile.elements // 2), tile.label
        assert not loop["FFMA"], tile.label


def test_few_slots_go_elsewhere(tiles: list[Tile]) -> None:
    for tile in [tile for tile in tiles if tile.is_vector]:
        assert slots(tile) <= ROOM * SLOTS[tile.label], f"{tile.label}: {slots(tile):.3f} slots an element"
    (wide,) = [tile for tile in tiles if tile.label == "forward float32 64x128"]
    assert slots(wide) <= MOST_SLOTS_OF_THE_FORWARD, f"{slots(wide):.4f} issue slots an element"


def test_no_kernel_touches_local_memory_and_blocks_have_their_registers(tiles: list[Tile]) -> None:
    for tile in tiles:
        assert not uses_local_memory(tile.kernel), tile.label
        granted = -(-tile.kernel.registers // 8) * 8 * tile.threads * tile.sizes[-1]
        assert granted <= REGISTERS_OF_A_MULTIPROCESSOR, f"{tile.label}: {tile.kernel.registers} registers"


def test_four_bytes_are_two_instructions_on_sm_120f(tmp_path: Path) -> None:
    """2 max(x, w): the sums of x and w, a thread's share of them, are added beside. U8 is U8x4 here."""
    cubin = compile_cubin("distance_u8", tmp_path, "120f", since=(13, 5))

    for tile in map(tile_of, kernels_of(cubin)):
        loop = tile.kernel.loop
        steps, rows, columns = tile.sizes[2], tile.sizes[0], tile.sizes[1]
        beside = steps * (rows + columns) // tile.threads
        assert loop["VIMNMX.U8"] == tile.elements, tile.label
        assert loop["IDP.4A.U8.U8"] == tile.elements + beside, tile.label
