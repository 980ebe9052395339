"""Damage inside a TIFF, which Pillow passes over: libtiff prints a line without a name and goes on."""

import zlib
from typing import Any

from addertrain.data.decoding import jpeg

_COMPRESSION, _TABLES = 259, 347
_PLACES = ((273, 279), (324, 325))  # offsets and byte counts of strips, or of tiles
_DEFLATE, _JPEG = frozenset({8, 32946}), 7


def damage(encoded: bytes, tags: Any) -> str | None:
    """What is damaged in the strips or tiles of a picture, by its tags; None where nothing shows.

    Deflate has a checksum, and JPEG is judged as in files of its own; LZW, PackBits and plain pixels have
    neither.
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
    """The tables of all pieces stand by themselves: start, tables, end."""
    head = jpeg.read_head(tables[:-2] + piece[2:] if tables else piece)
    return None if head is None else jpeg.damage(head)
