"""How many cores decoding needs so that no device waits for images.

An image costs a core some time, which differs between processors and files by factors: what is known here was
measured on one processor; `addertrain bench loader` measures it on the user's.
"""

from dataclasses import dataclass

from addertrain.data.beton.side_file import SideFile, side_path
from addertrain.data.sets.registry import Place
from addertrain.recipe import DataRecipe

PROCESSOR = "AMD EPYC, Zen 5"
MEASURED_MS = {
    "jpg 400": 0.441,
    "jpg 400, whole": 0.688,
    "jpg 500": 0.498,
    "jpg 500, whole": 0.953,
    "raw 500": 0.234,
    "original files": 8.36,
}
"""Processor ms of a training image of 224 pixels, by what it is read from: docs/data.md, "Speed and memory".

`whole`: JPEGs without restart markers, all of which is decoded.
"""
_SMALL = 400  # pixels of the longer side, up to which a file is like the smaller one


@dataclass(frozen=True)
class Decoding:
    """What reading an image costs a core, and how that is known."""

    ms: float
    source: str

    def cores(self, images_per_second: float) -> float:
        """Cores that decode at this rate."""
        return 1e-3 * self.ms * images_per_second


def decoding_of(settings: DataRecipe, places: list[Place], given_ms: float | None) -> Decoding | None:
    """The cost of a training image under a recipe; None where nothing is decoded in training.

    Args:
        places: what the loader opens, the training part first.
        given_ms: measured by the user; None: what is known of files of this kind.
    """
    if settings.loader == "memory" or not places:
        return None
    if given_ms is not None:
        return Decoding(given_ms, "--decode-ms")
    kind = "original files" if settings.loader == "torchvision" else _kind_of_file(places[0])
    source = f"{kind} at 224 pixels on {PROCESSOR}; --decode-ms takes what addertrain bench loader prints"
    return Decoding(MEASURED_MS[kind], source)


def _kind_of_file(place: Place) -> str:
    """Which measured file is like a .beton, by its side file; what `data write` makes where there is none."""
    if not place.is_there or not side_path(place.path).exists():
        return "jpg 400"
    side = SideFile.read(place.path)
    if side.settings.get("format") == "raw":
        return "raw 500"
    size = side.settings.get("max_size")
    kind = "jpg 400" if size is not None and size <= _SMALL else "jpg 500"
    num_marked = side.marked_jpegs  # None: earlier versions did not count
    has_markers = bool(side.settings.get("restart_interval") if num_marked is None else num_marked)
    return kind if has_markers else f"{kind}, whole"
