"""JPEGs of every sampling for tests, and what a part of one must be."""

import ctypes
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from addertrain.data.beton.part_decoder import Part, decode_part
from addertrain.data.beton.reader import decode
from addertrain.data.crops import Box
from tests.data.photographs import waves

# TurboJPEG's numbers of samplings; 4:4:0 halves chroma's rows, 4:1:1 has a quarter of its columns.
SAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2, "grey": 3, "4:4:0": 4, "4:1:1": 5}
_PROGRESSIVE = 16384  # TJFLAG_PROGRESSIVE


def turbo_jpeg(pixels: NDArray[np.uint8], sampling: int, *, is_progressive: bool = False) -> bytes:
    """A JPEG of any sampling; Pillow writes three of them."""
    library: Any = ctypes.CDLL("libturbojpeg.so.0")
    library.tjInitCompress.restype = ctypes.c_void_p
    handle, place, size = ctypes.c_void_p(library.tjInitCompress()), ctypes.c_void_p(), ctypes.c_ulong()
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    source = ctypes.c_void_p(pixels.ctypes.data)
    failed = library.tjCompress2(
        handle, source, width, 0, height, 0, ctypes.byref(place), ctypes.byref(size), sampling, 90,
        _PROGRESSIVE if is_progressive else 0,
    )  # fmt: skip
    assert not failed
    content = ctypes.string_at(place, size.value)
    library.tjFree(place)
    library.tjDestroy(handle)
    return content


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(height).integers(-40, 40, (height, width, 3))
    return np.clip(waves(2, height, width) + noise, 0, 255).astype(np.uint8)


def jpeg_of(image: Image.Image, **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **settings)
    return stream.getvalue()


def assert_same(content: bytes, height: int, width: int, box: Box) -> None:
    whole = Part(Box(0, 0, height, width), np.empty((height, width, 3), dtype=np.uint8))
    assert decode(content, whole.pixels)
    part = decode_part(content, height, width, box)
    assert part is not None
    assert np.array_equal(part.cut(box), whole.cut(box)), box
