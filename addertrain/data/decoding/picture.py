"""Decodes one image of any format; every reader here gets its pixels from this module."""

import functools
import io
import stat
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.io  # registers the operator below
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from addertrain.data.decoding import jpeg
from addertrain.data.decoding.modes import AS_IT_IS, Change, Decoded, Rendering, to_rgb, upright
from addertrain.errors import PictureError

FORMATS = ("JPEG", "MPO", "PNG", "PPM", "BMP", "DIB", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000")
"""What is read, in Pillow's names; its other formats are for documents and textures, some run programs."""

MAX_PIXELS = 178_956_970  # Pillow refuses more as an attack; here JPEGs have the same limit
# A TIFF's tags: compression, tables of JPEGs; offsets and byte counts of strips, or of tiles.
_COMPRESSION, _TABLES = 259, 347
_PLACES = ((273, 279), (324, 325))
_DEFLATE, _JPEG = frozenset({8, 32946}), 7
_RGB = int(torchvision.io.ImageReadMode.RGB.value)


def read_picture(path: Path, rendering: Rendering = AS_IT_IS, *, name: str | None = None) -> Decoded:
    """The image of a file in RGB.

    Raises:
        PictureError: there is no file, or it is not an image.
    """
    name = str(path) if name is None else name
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
        encoded = path.read_bytes() if is_file else b""
    except (OSError, ValueError) as error:  # ValueError: a path that cannot be one
        why = error.strerror if isinstance(error, OSError) else error
        reason = f"expected a readable image, got: {why} (it may have been removed while in use)"
        raise PictureError(name, reason) from None
    if not is_file:
        raise PictureError(name, "expected a file, got a folder, pipe or device")
    return decode_picture(encoded, rendering, name=name)


def picture_size(path: Path) -> tuple[int, int] | None:
    """Width and height from the header of a file; None if it cannot be read."""
    try:
        with Image.open(path, formats=_formats()) as image:
            return image.size
    except Exception:  # as in decode_picture, which tells what is wrong
        return None


def decode_picture(encoded: bytes, rendering: Rendering = AS_IT_IS, *, name: str) -> Decoded:
    """The image in RGB, (H, W, 3), upright; the suffix of the file does not matter.

    Raises:
        PictureError: the bytes are no image, or an incomplete or damaged one, or one that RGB bytes cannot
        represent.
    """
    try:
        if encoded.startswith(jpeg.START) and (head := jpeg.read_head(encoded)):
            return _jpeg(encoded, head, rendering)
        return _by_pillow(encoded, rendering)
    except Exception as error:  # decoders raise whatever a damaged file leads them to: it is this picture's
        raise PictureError(name, _reason(error, encoded)) from None


def _jpeg(encoded: bytes, head: jpeg.JpegHead, rendering: Rendering) -> Decoded:
    if head.height * head.width > MAX_PIXELS:
        raise ValueError(
            f"expected at most {MAX_PIXELS} pixels, got {head.width} x {head.height}; make it smaller"
        )
    pixels, damage = jpeg.decode(encoded, head)
    if damage:
        raise ValueError(f"expected an intact JPEG, got a damaged one ({damage})")
    if pixels is None:
        pixels = _by_torchvision(encoded)
    if pixels is None:  # Pillow reads kinds of JPEG that torchvision does not, and its errors are clearer
        pixels = _by_pillow(encoded, rendering, is_upright=True).pixels
    change = Change.TURNED if head.orientation != 1 else Change(0)
    return Decoded(upright(pixels, head.orientation), change)


def _by_torchvision(encoded: bytes) -> NDArray[np.uint8] | None:
    flat = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    try:
        # Half the time of Pillow's way to the same pixels, and other threads run meanwhile. The operator
        # itself: from 0.29 on the function around it warns at every call that it moves to TorchCodec.
        chw: torch.Tensor = torch.ops.image.decode_jpeg(flat, _RGB, False)
    except (RuntimeError, AttributeError):
        return None
    return np.ascontiguousarray(chw.permute(1, 2, 0).numpy())


def _by_pillow(encoded: bytes, rendering: Rendering, *, is_upright: bool = False) -> Decoded:
    with Image.open(io.BytesIO(encoded), formats=_formats()) as image:
        if image.format == "TIFF" and (damage := _tiff_damage(encoded, image.tag_v2)):  # type: ignore[attr-defined]
            raise ValueError(f"expected an intact TIFF, got a damaged one ({damage})")
        return to_rgb(image, rendering, is_upright=is_upright)


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow supports."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _reason(error: Exception, encoded: bytes) -> str:
    """What was expected and what came, which our own errors say and those of decoders do not."""
    text = " ".join(str(error).split()) or type(error).__name__
    if text.startswith("expected "):
        return text
    if isinstance(error, UnidentifiedImageError):
        text = "not one of " + ", ".join(name for name in _formats() if name not in ("MPO", "DIB"))
    return f"expected an image, got {len(encoded)} bytes that no decoder reads ({text})"


def _tiff_damage(encoded: bytes, tags: Any) -> str | None:
    """The damage of the strips or tiles of a TIFF, which Pillow ignores; None if nothing is found.

    Deflate has a checksum, and JPEG is checked as in JPEG files; LZW, PackBits and plain pixels have neither.
    """
    compression = tags.get(_COMPRESSION)
    for offsets_tag, counts_tag in _PLACES:
        for start, size in zip(tags.get(offsets_tag, ()), tags.get(counts_tag, ()), strict=False):
            piece = encoded[start : start + size]
            if compression in _DEFLATE:
                try:
                    zlib.decompress(piece)
                except zlib.error as error:
                    return str(error)
            elif compression == _JPEG and (found := _jpeg_damage(piece, tags.get(_TABLES, b""))):
                return found
    return None


def _jpeg_damage(piece: bytes, tables: bytes) -> str | None:
    """The damage of a JPEG strip; its tables are stored separately, as start, tables, end."""
    head = jpeg.read_head(tables[:-2] + piece[2:] if tables else piece)
    return None if head is None else jpeg.damage(head)
