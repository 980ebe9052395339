"""Reads, checks, decodes, crops and flips images without Python's lock; only `reader` imports it.

numba compiles it at the first call, which takes a second, and caches the result on disk.
"""

from typing import Any

import numpy as np
from numba import njit, types

from addertrain.data.beton.format import CHECKSUM_FACTOR, JPEG

# Names under which `reader` makes the functions of FFCV's library known.
DECODE_SYMBOL, RESIZE_SYMBOL = "addertrain_ffcv_imdecode", "addertrain_ffcv_resize"
PART_SYMBOL, SHRINK_SYMBOL = "addertrain_decode_part", "addertrain_shrink_box"
FINE, CUT_SHORT, DAMAGED, UNDECODABLE = range(4)

_i32: Any = types.int32
_u32: Any = types.uint32
_i64: Any = types.int64
_u64: Any = types.uint64
# Of FFCV: turbojpeg's decoder, and OpenCV's area interpolation of a part of an image.
_imdecode: Any = types.ExternalFunction(
    DECODE_SYMBOL,
    _i32(_i64, _u64, _u32, _u32, _i64, _u32, _u32, _u32, _u32, _u32, _u32, types.boolean, types.boolean),
)
_resize: Any = types.ExternalFunction(RESIZE_SYMBOL, types.void(*[_i64] * 11))
# Of `part_decoder` and `box_shrinker`.
_decode_part: Any = types.ExternalFunction(
    PART_SYMBOL, _i32(_i64, _i64, _i64, _i64, _i64, _i64, _i64, _i64, _i64)
)
_shrink_box: Any = types.ExternalFunction(SHRINK_SYMBOL, _i32(*[_i64] * 9))
_pread: Any = types.ExternalFunction("pread", _i64(_i32, _i64, _u64, _i64))


def _compiled(function: Any) -> Any:
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder can be written: compiled again in every process
        return njit(nogil=True)(function)


@_compiled
def checksum(encoded: Any, size: int) -> Any:
    """`beton_format.image_checksum` of the first `size` bytes; the buffer has at least seven bytes more."""
    num_words = (size + 7) // 8
    encoded[size : 8 * num_words] = 0
    words = encoded[: 8 * num_words].view(np.uint64)
    total = np.uint64(0)
    for k in range(num_words):
        mixed = (words[k] ^ (words[k] >> np.uint64(29))) * np.uint64(CHECKSUM_FACTOR)
        total += (mixed ^ (mixed >> np.uint64(32))) * np.uint64(2 * k + 1)
    return total


@_compiled
def decode_images(
    file: int,
    offsets: Any,
    sizes: Any,
    checksums: Any,
    modes: Any,
    sides: Any,
    boxes: Any,
    is_flipped: Any,
    encoded: Any,
    pixels: Any,
    images: Any,
    status: Any,
    can_decode_parts: bool,
    can_shrink: bool,
) -> None:
    """Fills images (N, H, W, 3) from their places in a file, and writes the outcome of each to `status`.

    `sides` are heights and widths (N, 2), `boxes` rows, columns, heights and widths (N, 4); `checksums` is
    empty where there are none. `encoded` (twice its size and a tail) and `pixels` (with a tail) are scratch
    for the largest image. Cropped JPEGs and shrinking boxes have functions of their own; FFCV's library does
    what they do not support.
    """
    size_out, width_out = images.shape[1], images.shape[2]
    shown = np.empty(4, dtype=np.int64)  # the rectangle of the image that `source` holds
    for k in range(len(offsets)):
        size = sizes[k]
        done = np.int64(0)
        while done < size:
            got = _pread(_i32(file), encoded.ctypes.data + done, _u64(size - done), _i64(offsets[k]) + done)
            if got <= 0:
                break
            done += got
        if done != size:
            status[k] = CUT_SHORT
            continue
        if len(checksums) > 0 and checksum(encoded, size) != checksums[k]:
            status[k] = DAMAGED
            continue
        height, width = sides[k, 0], sides[k, 1]
        source = encoded.ctypes.data
        shown[0], shown[1], shown[2], shown[3] = 0, 0, height, width
        if modes[k] == JPEG:
            source = pixels.ctypes.data
            is_done = can_decode_parts and _decode_part(
                encoded.ctypes.data, size, height, width, boxes[k].ctypes.data,
                encoded[size:].ctypes.data, source, pixels.size, shown.ctypes.data,
            )  # fmt: skip
            if not is_done:
                shown[0], shown[1], shown[2], shown[3] = 0, 0, height, width
                failed = _imdecode(
                    encoded.ctypes.data, _u64(size), _u32(height), _u32(width), source, _u32(height),
                    _u32(width), _u32(0), _u32(0), _u32(1), _u32(1), False, False,
                )  # fmt: skip
                if failed != 0:
                    status[k] = UNDECODABLE
                    continue
        row, column = boxes[k, 0] - shown[0], boxes[k, 1] - shown[1]
        image = images[k]
        is_done = can_shrink and _shrink_box(
            source, shown[3], row, column, boxes[k, 2], boxes[k, 3], image.ctypes.data, size_out, width_out
        )
        if not is_done:
            _resize(
                0, source, shown[2], shown[3], row, row + boxes[k, 2], column, column + boxes[k, 3],
                image.ctypes.data, size_out, width_out,
            )  # fmt: skip
        if is_flipped[k]:
            _mirror(image)
        status[k] = FINE


@_compiled
def _mirror(image: Any) -> None:
    last = image.shape[1] - 1
    for row in range(image.shape[0]):
        for left in range((last + 1) // 2):
            for channel in range(3):
                kept = image[row, left, channel]
                image[row, left, channel] = image[row, last - left, channel]
                image[row, last - left, channel] = kept
