"""The memory that a .beton needs: the kernel's page cache and the loader's own buffers."""

from dataclasses import dataclass
from pathlib import Path

from addertrain.data.beton.format import RAW, BetonIndex, read_index
from addertrain.data.loaders.pictures import BATCHES_AHEAD
from addertrain.data.loaders.sizes import decode_threads, evaluation_size, training_size
from addertrain.recipe import DataRecipe

_MEMINFO = Path("/proc/meminfo")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_INDEX_BYTES = 80  # of one sample, in the reader's arrays and the order of an epoch
_JPEG_SHARE = 0.1  # of raw pixels, at quality 90: measured on ImageNet at 500 and 400 pixels


@dataclass(frozen=True)
class PictureNeeds:
    """Bytes for one .beton on one machine.

    `file` is its size on disk, which the page cache of a machine should hold once for all ranks, so that
    reading is fast from the second epoch on; `loader` is the memory of each rank; `memory` is what the
    machine provides.
    """

    file: int
    loader: int
    memory: int
    jpeg_file: int | None  # about as large would the file be in JPEGs, where it is raw

    @property
    def warning(self) -> str | None:
        """A line of warning if every epoch would have to be read from disk."""
        if self.file <= self.memory:
            return None
        advice = (
            f"write it with --format jpg, some {self.jpeg_file / 1e9:.0f} GB"
            if self.jpeg_file is not None
            else "write it with a smaller --max-size, or count on the disk's speed"
        )
        return (
            f"expected a file that fits into {self.memory / 1e9:.0f} GB of memory, got "
            f"{self.file / 1e9:.0f} GB: every epoch would be read from the disk; {advice}"
        )


def picture_needs(path: Path, settings: DataRecipe, *, world_size: int = 1) -> PictureNeeds:
    """The needs of a .beton under a recipe.

    Raises:
        DataError: the file is missing or damaged.
    """
    index = read_index(path)
    raw_bytes = int(index.sizes[index.modes == RAW].sum())
    jpeg_file = index.num_bytes - round((1 - _JPEG_SHARE) * raw_bytes) if raw_bytes else None
    return PictureNeeds(
        file=index.num_bytes,
        loader=_loader_bytes(index, settings, world_size),
        memory=available_memory(),
        jpeg_file=jpeg_file,
    )


def available_memory() -> int:
    """The bytes that this machine, or the limit of its container, provides."""
    lines = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
    memory = int(lines["MemAvailable"].split()[0]) * 1024
    try:
        limit = _CGROUP_LIMIT.read_text().strip()
    except OSError:
        return memory
    return memory if limit == "max" else min(memory, int(limit))


def _loader_bytes(index: BetonIndex, settings: DataRecipe, world_size: int) -> int:
    size = max(training_size(settings, settings.grow_until), evaluation_size(settings, 0))
    batch = -(-settings.global_batch_size // world_size) * size * size * 3
    scratch = 2 * int(index.sizes.max()) + 3 * int((index.heights * index.widths).max())
    # One batch in the caller's hands, those ahead, and the one being asked for.
    return (BATCHES_AHEAD + 2) * batch + decode_threads(settings) * scratch + _INDEX_BYTES * len(index)
