"""Decodes JPEGs with libjpeg-turbo's TurboJPEG, which reports damage that other decoders ignore.

A JPEG with damaged pixel data still decodes to an image, and libjpeg only warns. torchvision and Pillow drop
these warnings, TurboJPEG counts them. It is the system library with which FFCV is linked.
"""

import ctypes
import functools
import re
import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

START = b"\xff\xd8\xff"
_LIBRARY = "libturbojpeg.so.0"
_RGB, _CMYK = 0, 11  # TJPF_RGB, TJPF_CMYK
_ONLY_A_WARNING = 0  # TJERR_WARNING
# TJFLAG_STOPONWARNING; without it an error that follows a warning has the code of a warning.
_STOP_ON_WARNING = 8192
_BLOCK = 8  # pixels of a block of coefficients
_CHECK_SCALE = 8  # an eighth of the size needs all of the data and hardly any transform
_ORIENTATION = 0x0112
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DATA = frozenset({0xC4, 0xCC, 0xDB, 0xDD}) | _FRAMES  # the segments that decoding needs
_SEQUENTIAL = frozenset({0xC0, 0xC1})
_TABLES, _SCAN, _INTERVAL, _APP1, _END = 0xC4, 0xDA, 0xDD, 0xE1, 0xD9
_HOLE = bytes(64)  # more than two blocks of nothing but the coefficient that a zero bit stands for
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a segment


class JpegHead(NamedTuple):
    """The header of a JPEG, and the JPEG without segments that decoding does not need."""

    height: int
    width: int
    channels: int
    orientation: int  # EXIF's, 1 to 8; 1: upright
    may_be_zeros: bool  # whether many zero bytes can stand for pixels
    tables: bytes
    scans: bytes
    is_one_scan: bool  # sequential, with all components in the first scan
    columns: int  # macroblocks of a row
    restart_interval: int = 0  # macroblocks between restart markers; 0: there are none

    @property
    def can_be_cut(self) -> bool:
        """Whether restart markers stand at the same columns in every row of macroblocks."""
        return self.is_one_scan and self.restart_interval > 0 and self.columns % self.restart_interval == 0

    @property
    def pixel_data(self) -> bytes:
        """The scans up to the end of the image; cameras append other data."""
        end = self.scans.find(b"\xff\xd9")
        return self.scans if end < 0 else self.scans[:end]


def read_head(encoded: bytes) -> JpegHead | None:
    """The header of a JPEG; None if there is none."""
    size: tuple[int, int, int] | None = None
    orientation, kept, place, is_sequential, restart_interval = 1, [b"\xff\xd8"], 2, False, 0
    macroblock = _BLOCK
    zero_codes: dict[int, int] = {}
    try:
        while True:
            place = encoded.index(b"\xff", place) + 1
            marker = encoded[place]
            if marker in (0x00, 0xFF) or marker in _ALONE:
                continue
            if marker == _END:
                return None
            (length,) = struct.unpack_from(">H", encoded, place + 1)
            segment = encoded[place + 3 : place + 1 + length]
            if marker == _SCAN:
                break
            if marker in _FRAMES:
                size, is_sequential = struct.unpack_from(">HHB", segment, 1), marker in _SEQUENTIAL
                macroblock = _macroblock_width(segment)
            elif marker == _APP1:
                orientation = _orientation(segment, orientation)
            elif marker == _INTERVAL:
                (restart_interval,) = struct.unpack_from(">H", segment)
            elif marker == _TABLES:
                zero_codes |= _zero_codes(segment)
            if marker in _DATA:
                kept.append(encoded[place - 1 : place + 1 + length])
            place += 1 + length
        # Blocks of luminance in every unit, and no code for their end that is all zeros.
        is_one_scan = is_sequential and size is not None and segment[0] == size[2]
        may_be_zeros = not is_one_scan or zero_codes.get(segment[2] & 15, 0) == 0
    except (ValueError, IndexError, struct.error):
        return None
    if size is None or not all(size):
        return None
    tables, scans = b"".join(kept), encoded[place - 1 :]
    columns = -(-size[1] // macroblock)
    return JpegHead(*size, orientation, may_be_zeros, tables, scans, is_one_scan, columns, restart_interval)


def _macroblock_width(frame: bytes) -> int:
    """Pixels of a macroblock of the scan that holds all components; of a single component it is a block."""
    factors = [component >> 4 for component in frame[7::3][: frame[5]]]
    return _BLOCK * max(1, *factors) if len(factors) > 1 else _BLOCK


def _zero_codes(tables: bytes) -> dict[int, int]:
    """The meaning of zero bits in the Huffman tables of AC coefficients, by table number; 0 is the end of a
    block.
    """
    meanings: dict[int, int] = {}
    place = 0
    while place + 17 < len(tables):
        if tables[place] >> 4:
            meanings[tables[place] & 15] = tables[place + 17]
        place += 17 + sum(tables[place + 1 : place + 17])
    return meanings


def _orientation(segment: bytes, known: int) -> int:
    """EXIF's orientation in an APP1 segment; a damaged one is ignored, as by every viewer."""
    if not segment.startswith(b"Exif\0\0"):
        return known
    exif = Image.Exif()
    try:
        exif.load(segment)
        value = exif.get(_ORIENTATION, known)
    except Exception:
        return known
    return value if value in range(1, 9) else known


def decode(encoded: bytes, head: JpegHead) -> tuple[NDArray[np.uint8] | None, str | None]:
    """The image in RGB (H, W, 3), and its damage; both None if TurboJPEG cannot decode it.

    The pixels are those of torchvision's operator, bit for bit, in nine tenths of its time.
    """
    library = _library()
    if library is None:
        return None, hole(head)
    if head.channels == 4:  # TurboJPEG gives no RGB of these; the check is all that is wanted of it
        return None, damage(head)
    pixels = np.empty((head.height, head.width, 3), dtype=np.uint8)
    warning = _decompress(library, encoded, pixels, _RGB)
    if warning == "":
        return pixels, hole(head)
    # A warning that may be harmless, or a failure: the other decoders are tried, and say what is wrong.
    return None, damage(head) if warning else None


def damage(head: JpegHead) -> str | None:
    """The damage of the pixel data; None if nothing is found, or without libjpeg.

    Bytes between the segments of the header change no pixel, and neither do a few zeros before the end. No
    decoder can see damage after which the number of blocks is right, but a hole, such as a lost sector, is
    recognised by its zeros.
    """
    library = _library()
    if library is None:
        return hole(head)
    channels, form = (4, _CMYK) if head.channels == 4 else (3, _RGB)
    height, width = -(-head.height // _CHECK_SCALE), -(-head.width // _CHECK_SCALE)
    small = np.empty((height, width, channels), dtype=np.uint8)
    warning = _decompress(library, head.tables + head.scans, small, form)
    return hole(head) if not warning or _is_padding(warning, head) else warning


def has_turbojpeg() -> bool:
    """Whether damaged pixel data of JPEGs is noticed on this machine."""
    return _library() is not None


def _is_padding(warning: str, head: JpegHead) -> bool:
    """Whether the unused bytes are zeros, so that no pixels are lost."""
    found = re.search(r"(\d+) extraneous bytes before marker 0xd9", warning)
    return found is not None and not head.pixel_data[-int(found[1]) :].strip(b"\0")


def hole(head: JpegHead) -> str | None:
    """Zeros in the pixel data that no encoder writes, such as those of a lost sector."""
    if head.may_be_zeros or (place := (data := head.pixel_data).find(_HOLE)) < 0:
        return None
    return f"{len(data) - place - len(data[place:].lstrip(bytes(1)))} zero bytes amid the pixel data"


def _decompress(library: Any, encoded: bytes, pixels: NDArray[np.uint8], form: int) -> str | None:
    """Fills `pixels` and returns "", or libjpeg's first warning, or None if decoding failed."""
    handle = library.tjInitDecompress()
    try:
        height, width, channels = pixels.shape
        failed = library.tjDecompress2(
            handle,
            encoded,
            len(encoded),
            pixels.ctypes.data,
            width,
            width * channels,
            height,
            form,
            _STOP_ON_WARNING,
        )
        if not failed:
            return ""
        if library.tjGetErrorCode(handle) != _ONLY_A_WARNING:
            return None
        return str(library.tjGetErrorStr2(handle).decode("ascii", "replace"))
    finally:
        library.tjDestroy(handle)


@functools.cache
def _library() -> Any:
    """TurboJPEG, or None if it is not installed."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int
    for name, result, arguments in (
        ("tjInitDecompress", pointer, []),
        ("tjDestroy", number, [pointer]),
        ("tjGetErrorCode", number, [pointer]),
        ("tjGetErrorStr2", ctypes.c_char_p, [pointer]),
        (
            "tjDecompress2",
            number,
            [pointer, ctypes.c_char_p, ctypes.c_ulong, pointer, number, number, number, number, number],
        ),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
