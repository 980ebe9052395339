"""One picture from its bytes, whatever its format says; every reader here gets its pixels from this."""

import functools
import io
import stat
from pathlib import Path

import numpy as np
import torch
import torchvision.io  # registers the operator below
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from addertrain.data.decoding import jpeg, tiff
from addertrain.errors import PictureError
from addertrain.data.decoding.modes import AS_IT_IS, Change, Decoded, Rendering, to_rgb, upright

FORMATS = ("JPEG", "MPO", "PNG", "PPM", "BMP", "DIB", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000")
"""What is read, in Pillow's names; its other formats are for documents and textures, some run programs."""

MAX_PIXELS = 178_956_970  # Pillow refuses more as an attack; here JPEGs have the same limit
_RGB = int(torchvision.io.ImageReadMode.RGB.value)


def read_picture(path: Path, rendering: Rendering = AS_IT_IS, *, name: str | None = None) -> Decoded:
    """The picture of a file in RGB.

    Raises:
        PictureError: there is no file, or no picture in it.
    """
    name = str(path) if name is None else name
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
        encoded = path.read_bytes() if is_file else b""
    except (OSError, ValueError) as error:  # ValueError: a path that cannot be one
        why = error.strerror if isinstance(error, OSError) else error
        reason = f"expected a readable picture, got: {why} (was it removed while in use?)"
        raise PictureError(name, reason) from None
    if not is_file:
        raise PictureError(name, "expected a file, got a folder, pipe or device")
    return decode_picture(encoded, rendering, name=name)


def picture_size(path: Path) -> tuple[int, int] | None:
    """Width and height from the head of a file; None where it has none that can be read."""
    try:
        with Image.open(path, formats=_formats()) as image:
            return image.size
    except Exception:  # as in decode_picture, which tells what is wrong
        return None


def decode_picture(encoded: bytes, rendering: Rendering = AS_IT_IS, *, name: str) -> Decoded:
    """The picture in RGB, (H, W, 3), upright; files whose suffix lies are read too.

    Raises:
        PictureError: no picture, part of one, a damaged one, or one that RGB bytes cannot hold.
    """
    try:
        if encoded.startswith(jpeg.START) and (head := jpeg.read_head(encoded)):
            return _jpeg(encoded, head, rendering)
        return _by_pillow(encoded, rendering)
    except Exception as error:  # decoders raise whatever a damaged file leads them to: it is this picture's
        raise PictureError(name, _reason(error, encoded)) from None


def _jpeg(encoded: bytes, head: jpeg.JpegHead, rendering: Rendering) -> Decoded:
    if head.height * head.width > MAX_PIXELS:
        raise ValueError(f"expected at most {MAX_PIXELS} pixels, got {head.width} x {head.height}")
    pixels, damage = jpeg.decode(encoded, head)
    if damage:
        raise ValueError(f"expected a whole JPEG, got a damaged one ({damage})")
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
        if image.format == "TIFF" and (damage := tiff.damage(encoded, image.tag_v2)):  # type: ignore[attr-defined]
            raise ValueError(f"expected a whole TIFF, got a damaged one ({damage})")
        return to_rgb(image, rendering, is_upright=is_upright)


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _reason(error: Exception, encoded: bytes) -> str:
    """What was expected and what came; our own errors say both, decoders' say neither."""
    text = " ".join(str(error).split()) or type(error).__name__
    if text.startswith("expected "):
        return text
    if isinstance(error, UnidentifiedImageError):
        text = "not one of " + ", ".join(name for name in _formats() if name not in ("MPO", "DIB"))
    return f"expected a picture, got {len(encoded)} bytes that no decoder takes ({text})"
