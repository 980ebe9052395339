"""Decodes only the region of a JPEG that a crop shows, if libjpeg-turbo gives the same pixels as FFCV.

`kernels/csrc/pictures` is compiled where libjpeg-turbo's headers are. It and FFCV's TurboJPEG may be of
different versions, so their pixels are compared once in each process.
"""

import ctypes
import functools
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from addertrain import compiled
from addertrain.data.crops import Box
from addertrain.errors import RunError

Whole = Callable[[bytes, NDArray[np.uint8]], bool | None]
"""Fills pixels (H, W, 3) by the decoder that is to be agreed with."""

SCRATCH_TAIL = 8  # bytes after the encoded image that extracting may use
_LIBRARY = "_C_pictures"
_TRIED_SIZE, _TRIED_BOX = (75, 101), Box(19, 35, 40, 41)


class Part(NamedTuple):
    """A rectangle of an image, and its pixels (H, W, 3)."""

    box: Box
    pixels: NDArray[np.uint8]

    def cut(self, box: Box) -> NDArray[np.uint8]:
        """The pixels of a box of the image that is inside this rectangle."""
        row, column = box.row - self.box.row, box.column - self.box.column
        return self.pixels[row : row + box.height, column : column + box.width]


@functools.cache
def library() -> Any:
    """The compiled library; None if it was not built or libjpeg-turbo is not installed.

    Raises:
        RunError: it was compiled from older sources than these.
    """
    path = compiled.find(_LIBRARY)
    if path is None:
        return None
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError:
        return None
    try:
        return _typed(loaded)
    except AttributeError as error:
        raise RunError(
            f"expected a library of this version, got an older one ({error}); run launch/setup, or install "
            "addertrain again."
        ) from None


def _typed(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of its functions."""
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    decode = loaded.addertrain_decode_part
    decode.restype = ctypes.c_int32
    decode.argtypes = [pointer, number, number, number, pointer, pointer, pointer, number, pointer]
    mark = loaded.addertrain_restart_markers
    mark.restype = number
    mark.argtypes = [pointer, number, number, pointer, number]
    shrink = loaded.addertrain_shrink_box
    shrink.restype = ctypes.c_int32
    shrink.argtypes = [pointer, *[number] * 5, pointer, number, number]
    return loaded


def decode_part(encoded: bytes, height: int, width: int, box: Box) -> Part | None:
    """The rectangle of a JPEG that is decoded for a box in it; None if the complete image has to be
    decoded.
    """
    loaded = library()
    if loaded is None:
        return None
    cut = np.empty(len(encoded) + SCRATCH_TAIL, dtype=np.uint8)
    pixels = np.empty(3 * height * width, dtype=np.uint8)
    wanted, shown = np.array(box, dtype=np.int64), np.zeros(4, dtype=np.int64)
    is_done = loaded.addertrain_decode_part(
        encoded, len(encoded), height, width, wanted.ctypes.data, cut.ctypes.data,
        pixels.ctypes.data, pixels.size, shown.ctypes.data,
    )  # fmt: skip
    if not is_done:
        return None
    rectangle = Box(*shown.tolist())
    size = 3 * rectangle.height * rectangle.width
    return Part(rectangle, pixels[:size].reshape(rectangle.height, rectangle.width, 3))


def gives_the_pixels_of(decode_whole: Whole) -> bool:
    """Whether regions of small images of every usual kind equal those of the complete image."""
    return library() is not None and all(_is_same(content, decode_whole) for content in _tried_pictures())


def _tried_pictures() -> list[bytes]:
    height, width = _TRIED_SIZE
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3))
    ramp = np.add.outer(np.arange(height), np.arange(width))[..., None]
    picture = Image.fromarray((noise + ramp).astype(np.uint8))
    contents = []
    for markers in ({}, {"restart_marker_blocks": 1}):
        for image, settings in (
            (picture.convert("L"), {}),
            *((picture, {"subsampling": sampling}) for sampling in (0, 1, 2)),
        ):
            stream = io.BytesIO()
            image.save(stream, "JPEG", quality=90, **markers, **settings)
            contents.append(stream.getvalue())
    return contents


def _is_same(content: bytes, decode_whole: Whole) -> bool:
    whole = Part(Box(0, 0, *_TRIED_SIZE), np.empty((*_TRIED_SIZE, 3), dtype=np.uint8))
    part = decode_part(content, *_TRIED_SIZE, _TRIED_BOX)
    if part is None or not decode_whole(content, whole.pixels):
        return False
    return np.array_equal(part.cut(_TRIED_BOX), whole.cut(_TRIED_BOX))
