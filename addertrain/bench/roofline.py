"""Predicts the speed of the GPU kernels from instruction counts: python -m addertrain.bench.roofline

Nothing here is measured on a GPU. A pass takes as long as the busiest multiprocessor needs for its blocks on
the pipe that is fullest: issue slots, the pipe of the packed elements, tensor cores, shared memory, or device
memory. Slots come from the disassembly that tests/kernels/test_sass.py holds kernels to.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields

from addertrain.bench.layers import NETWORKS, LayerShape

MULTIPROCESSORS = 132
LANES = 128
"""Issue slots of a multiprocessor a clock, counted in threads' instructions."""
CLOCK_HZ = 1.755e9
MEMORY_BYTES_PER_CLOCK = 4.0e12 / CLOCK_HZ
"""Of the whole chip, at the boost clock: what a copy reaches of 4.8 TB/s, assumed."""
SHARED_BYTES_PER_CLOCK = 128
PACKED_PER_CLOCK = {"min": 64, "saturated": 128}
"""Packed 16-bit instructions, per clock and multiprocessor: assumed (docs/performance-gpu.md)."""
MMA_CLOCKS = 6.5
"""One m16n8k16 on one of four tensor cores: the data sheet allows 4; assumed."""
_WARP = 32
_ENOUGH_BLOCKS = 264  # kernels/csrc/cuda/plan.h: with fewer, k is split


@dataclass(frozen=True)
class Tile:
    """A kernel: issue slots an element in its loop, and about how many a thread needs outside of it."""

    rows: int
    columns: int
    slab: int
    threads: int
    slots: float
    outside: int
    shared_reads: float
    packed: str = ""
    packed_float: float = 0.0


# shared_reads: threads' 16-byte reads an element; packed_float: its instructions on two float32 values.
TILES: dict[tuple[str, str], list[Tile]] = {
    ("float32", "forward"): [
        Tile(64, 128, 16, 128, 2.19, 1100, 0.0625),
        Tile(128, 64, 16, 256, 2.31, 1000, 0.094),
        Tile(256, 16, 16, 128, 2.57, 1700, 0.094),
    ],
    ("float32", "grad_input"): [
        Tile(128, 128, 16, 256, 2.19, 2000, 0.0645),
        Tile(128, 64, 16, 256, 2.35, 1600, 0.098),
        Tile(256, 16, 16, 128, 2.66, 2300, 0.11),
    ],
    ("float16", "forward"): [
        Tile(128, 128, 32, 256, 0.816, 1500, 0.0215, "min"),
        Tile(128, 64, 32, 256, 0.838, 1300, 0.039, "min"),
        Tile(256, 16, 32, 256, 1.15, 1400, 0.074, "min"),
    ],
    ("float16", "grad_input"): [
        Tile(64, 64, 32, 256, 0.92, 1800, 0.018, "saturated"),
        Tile(64, 64, 32, 256, 0.92, 1800, 0.018, "saturated"),
        Tile(128, 16, 32, 256, 1.47, 1900, 0.023, "saturated"),
    ],
    ("bfloat16", "grad_input"): [
        Tile(64, 64, 32, 256, 0.96, 1800, 0.018, "saturated"),
        Tile(64, 64, 32, 256, 0.96, 1800, 0.018, "saturated"),
        Tile(128, 16, 32, 256, 1.62, 1900, 0.023, "saturated"),
    ],
}
TILES["bfloat16", "forward"] = TILES["float16", "forward"]
PACKED_TILES: dict[str, list[Tile]] = {
    "forward": [
        Tile(64, 128, 16, 128, 1.15, 1100, 0.0625, packed_float=1),
        Tile(128, 64, 16, 256, 1.26, 1000, 0.094, packed_float=1),
        Tile(256, 16, 16, 128, 1.44, 1700, 0.094, packed_float=1),
    ],
    "grad_input": [
        Tile(128, 128, 16, 256, 1.66, 2000, 0.0645, packed_float=0.5),
        Tile(128, 64, 16, 256, 1.78, 1600, 0.098, packed_float=0.5),
        Tile(256, 16, 16, 128, 2.15, 2300, 0.11, packed_float=0.5),
    ],
}
"""float32 on sm_100 and sm_103, which tests/kernels/test_packed_sass.py holds kernels to."""
PACKED_FLOAT_CLOCKS = (1, 2)
"""Clocks that a packed float32 instruction keeps a scheduler's lanes: not published, so both are shown."""


@dataclass(frozen=True)
class Prediction:
    """Clocks of a pass over a batch, and the share of the float32 ceiling that makes."""

    tile: Tile
    blocks: int
    clocks: float
    bound: str
    share: float


def predict(
    layer: LayerShape, batch: int, dtype: str, pass_: str, *, packed_float_clocks: int = 0
) -> Prediction:
    """The model above for one layer. A strided gradient is counted as its live phases of equal size.

    `packed_float_clocks`: float32 on a GPU that packs it, in so many clocks an instruction; 0: it does not.
    """
    is_forward = pass_ == "forward"
    columns, channels = (layer.O, layer.C) if is_forward else (layer.C, layer.O)
    wide, narrow, thin = PACKED_TILES[pass_] if packed_float_clocks else TILES[dtype, pass_]
    tile = wide if columns > 64 else narrow if columns > 32 else thin
    phases = 1 if is_forward else min(layer.stride, layer.kernel) ** 2
    rows = batch * (layer.output_size**2 if is_forward else (layer.size // layer.stride) ** 2)
    if not is_forward and layer.stride == 1:
        rows = batch * layer.size**2
    depth = _up(layer.kernel**2 * channels / phases, tile.slab) * tile.slab
    blocks = _up(rows, tile.rows) * _up(columns, tile.columns) * phases
    if dtype != "float32" and tile is wide and blocks < _ENOUGH_BLOCKS:
        tile, blocks = narrow, _up(rows, narrow.rows) * _up(columns, narrow.columns) * phases
    if blocks < _ENOUGH_BLOCKS:
        splits = min(2 * _ENOUGH_BLOCKS // blocks, max(1, depth // tile.slab // 4))
        blocks, depth = blocks * splits, _up(depth / splits, tile.slab) * tile.slab

    elements = tile.rows * tile.columns * depth
    clocks = _block_clocks(tile, elements, packed_float_clocks)
    busiest = _up(blocks, MULTIPROCESSORS)
    bound = max(clocks, key=lambda pipe: clocks[pipe])
    of_chip = _memory_clocks(layer, batch, 4 if dtype == "float32" else 2, is_forward)
    total = max(busiest * clocks[bound], of_chip)
    bound = "memory" if of_chip >= total else bound
    if dtype == "bfloat16" and not is_forward:  # dY is read once more, for its largest number
        total += batch * layer.O * layer.output_size**2 * 2 / MEMORY_BYTES_PER_CLOCK
    at_ceiling = batch * layer.elements_per_image / (MULTIPROCESSORS * LANES / 2)
    return Prediction(tile, blocks, total, bound, at_ceiling / total)


def _up(value: float, unit: int) -> int:
    return -int(-value // unit)


def _block_clocks(tile: Tile, elements: float, packed_float_clocks: int) -> dict[str, float]:
    """Clocks that a block keeps each pipe of its multiprocessor busy."""
    clocks = {
        "issue": (elements * tile.slots + tile.outside * tile.threads) / LANES,
        "shared": elements * tile.shared_reads * 16 / SHARED_BYTES_PER_CLOCK,
    }
    if tile.packed_float:
        alone = 2 - 2 * tile.packed_float  # instructions on one value
        clocks["float"] = elements * (alone + tile.packed_float * packed_float_clocks) / LANES
    if tile.packed:
        clocks["packed"] = elements / 2 / PACKED_PER_CLOCK[tile.packed]
        # 16 x 16 elements of one position an mma, on four tensor cores, and one in 32 for the sums of A.
        clocks["tensor"] = elements / 256 * (1 + 1 / _WARP) * MMA_CLOCKS / 4
    return clocks


def _memory_clocks(layer: LayerShape, batch: int, element_bytes: int, is_forward: bool) -> float:
    """Every image once in and once out: tiles of a row run side by side, the second cache serves the rest."""
    x, y = layer.C * layer.size**2, layer.O * layer.output_size**2
    moved = x + y if is_forward else 2 * x + y
    return batch * moved * element_bytes / MEMORY_BYTES_PER_CLOCK


def in_sum(network: str, batch: int, dtype: str, pass_: str, *, packed_float_clocks: int = 0) -> float:
    """Share of the float32 ceiling over all layers of a network."""
    layers = NETWORKS[network].layers
    predictions = [
        (layer, predict(layer, batch, dtype, pass_, packed_float_clocks=packed_float_clocks))
        for layer in layers
    ]
    total = sum(layer.count * prediction.clocks for layer, prediction in predictions)
    elements = sum(layer.count * batch * layer.elements_per_image for layer in layers)
    return elements / (MULTIPROCESSORS * LANES / 2) / total


@dataclass(frozen=True)
class Fusion:
    """What follows a layer's response y, in microseconds: as passes of their own, and in the epilogue."""

    read_again: float
    sums: float
    norm_apart: float
    norm_inside: float

    @property
    def cells(self) -> str:
        """Of a table's row."""
        return f"{self.read_again:.0f} | {self.sums:.0f} | {self.norm_apart:.0f} | {self.norm_inside:.0f}"


SUMS_SLOTS, NORM_SLOTS = 7, 9
"""Issue slots an output: two rounds over the tile in shared memory; scale, shift and ReLU on the way out."""


def fusion(layer: LayerShape, batch: int, element_bytes: int) -> Fusion:
    """A norm's statistics read y once. In evaluation norm and ReLU read and write y twice each."""
    outputs = batch * layer.O * layer.output_size**2
    clocks_per_us = CLOCK_HZ / 1e6
    pass_us = outputs * element_bytes / MEMORY_BYTES_PER_CLOCK / clocks_per_us
    slot_us = outputs / (MULTIPROCESSORS * LANES) / clocks_per_us
    return Fusion(pass_us, SUMS_SLOTS * slot_us, 4 * pass_us, NORM_SLOTS * slot_us)


def fusion_in_sum(network: str, batch: int, element_bytes: int) -> Fusion:
    """Over all layers of a network."""
    layers = NETWORKS[network].layers
    each = [(layer.count, fusion(layer, batch, element_bytes)) for layer in layers]
    sums = (sum(count * getattr(one, field.name) for count, one in each) for field in fields(Fusion))
    return Fusion(*sums)


def _print_fusion(network: str, batch: int) -> None:
    head = "sums: read y again | sums inside | norm and ReLU apart | norm and ReLU inside"
    print(f"\n| {network}, batch {batch}, 16 bits, us | {head} |\n|---|{'---|' * 4}")
    for layer in NETWORKS[network].layers:
        print(f"| {layer.count} x {layer.name} | {fusion(layer, batch, 2).cells} |")
    for name, element_bytes in (("all, 16 bits", 2), ("all, float32", 4)):
        print(f"| **{name}** | {fusion_in_sum(network, batch, element_bytes).cells} |")


def _batch_of(network: str) -> int:
    return 256 if network == "resnet20" else 128


def _print_packed(networks: Sequence[str]) -> None:
    """What sm_100 and sm_103 gain from packing, all else equal."""
    columns = [(pass_, clocks) for pass_ in ("forward", "grad_input") for clocks in (0, *PACKED_FLOAT_CLOCKS)]
    names = ("not packed", "packed, 1 clock", "packed, 2 clocks")
    head = " | ".join(f"{pass_} {name}" for pass_ in ("forward", "grad_input") for name in names)
    print(f"\n| float32 on sm_100 | {head} |\n|---|{'---|' * len(columns)}")
    for network in networks:
        shares = [
            in_sum(network, _batch_of(network), "float32", pass_, packed_float_clocks=clocks)
            for pass_, clocks in columns
        ]
        print(f"| {network} | {' | '.join(f'{100 * share:.0f} %' for share in shares)} |")


def main(networks: Sequence[str]) -> int:
    """Prints a table for each network, by default for ResNet-18 and ResNet-50, at batch 128 (ResNet-20: 256);
    then what fusing saves ResNet-50, if it is among them, and what sm_100 gains.
    """
    networks = networks or ("resnet18", "resnet50")
    columns = [("float32", "forward"), ("float32", "grad_input"), ("float16", "forward")]
    columns += [("float16", "grad_input"), ("bfloat16", "grad_input")]
    head = " | ".join(f"{dtype} {pass_}" for dtype, pass_ in columns)
    for network in networks:
        batch = _batch_of(network)
        print(f"\n| {network}, batch {batch} | {head} |\n|---|{'---|' * len(columns)}")
        for layer in NETWORKS[network].layers:
            cells = [_cell(predict(layer, batch, *column)) for column in columns]
            print(f"| {layer.count} x {layer.name} | {' | '.join(cells)} |")
        totals = [f"**{100 * in_sum(network, batch, *column):.0f} %**" for column in columns]
        print(f"| **all** | {' | '.join(totals)} |")
    if "resnet50" in networks:
        _print_fusion("resnet50", 128)
    _print_packed(networks)
    return 0


def _cell(prediction: Prediction) -> str:
    return f"{100 * prediction.share:.0f} % {prediction.bound}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
