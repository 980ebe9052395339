"""JPEGs that are stored without being compressed again, with restart markers put in where that can be done.

A JPEG is kept where its own decoder gives the pixels that the source gave: one that is turned by its EXIF
orientation, is CMYK, damaged or of a kind that FFCV does not decode is compressed like every other image.
"""

import numpy as np
from numpy.typing import NDArray

from addertrain.data.beton import part_decoder
from addertrain.data.decoding import jpeg

# Room beyond the JPEG's own bytes, for every block of 64 pixels and for tables: a marker takes two bytes, the
# bits before it fill a byte, and the DC coefficients behind it are no differences any more.
_BYTES_A_BLOCK, _BYTES_OF_TABLES = 16, 4096


def can_mark() -> bool:
    """Whether restart markers can be put into a JPEG without compressing it again."""
    return part_decoder.library() is not None


def kept_jpeg(encoded: bytes, pixels: NDArray[np.uint8], *, interval: int) -> bytes | None:
    """A JPEG of these pixels (H, W, 3) as it is stored; None where it has to be compressed again.

    Args:
        interval: macroblocks between restart markers, less where that does not divide a row of them; 0: the
            bytes stay what they are.
    """
    head = jpeg.read_head(encoded) if encoded.startswith(jpeg.START) else None
    if head is None:
        return None
    content = encoded
    if interval:
        marked = with_markers(encoded, head, dividing_interval(head.columns, interval))
        if marked is None or (head := jpeg.read_head(marked)) is None:
            return None
        content = marked
    decoded, damage = jpeg.decode(content, head)
    is_same = decoded is not None and damage is None and np.array_equal(decoded, pixels)
    return content if is_same else None


def with_markers(encoded: bytes, head: jpeg.JpegHead, interval: int) -> bytes | None:
    """The JPEG with its own coefficients and a restart marker after every `interval` macroblocks.

    It is sequential, with Huffman tables of its own, and without comments, EXIF data and colour profiles.
    None where libjpeg warns of the JPEG or cannot rewrite it.
    """
    library = part_decoder.library()
    if library is None:
        return None
    num_blocks = -(-head.height // 8) * -(-head.width // 8)
    capacity = 2 * len(encoded) + _BYTES_A_BLOCK * num_blocks + _BYTES_OF_TABLES
    marked = np.empty(capacity, dtype=np.uint8)
    length = library.addertrain_restart_markers(encoded, len(encoded), interval, marked.ctypes.data, capacity)
    return marked[:length].tobytes() if length else None


def dividing_interval(columns: int, most: int) -> int:
    """The largest interval up to `most` whose markers stand at the same columns in every row; 0 for 0."""
    return max((interval for interval in range(1, most + 1) if columns % interval == 0), default=0)
