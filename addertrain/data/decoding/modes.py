"""Converts a decoded image of any of Pillow's modes to RGB bytes, or refuses it.

docs/data.md has the decision for every mode in a table.
"""

import enum
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_PLAIN = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"})
_WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_DEEP = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I", "F"})
_UNMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF's tags
_SAMPLE_FORMAT, _SIGNED = 339, 2
_ORIENTATION = 0x0112
_DIM = 32  # of 255: an eighth


class Change(enum.IntFlag):
    """How an image was changed besides decoding it."""

    TURNED = 1  # upright, by its EXIF orientation
    LAID = 2  # transparent pixels on the ground
    SCALED = 4  # grey of more than 8 bits to 8
    DIM = 8  # scaled, and all of it in the darkest eighth: perhaps its white was another
    KEPT = 16  # nothing at all: its JPEG was stored without being compressed again


class Decoded(NamedTuple):
    """An image in RGB, (H, W, 3), and how it was changed."""

    pixels: NDArray[np.uint8]
    change: Change


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """How images that are not 8-bit colour are converted to it.

    Args:
        background: the colour (R, G, B) behind transparent pixels.
        white: the value that becomes white in grey images of more than 8 bits; None uses the maximum of the
            format (65535 for 16 bits, the header's maximum in PGM) and refuses images without one.
    """

    background: tuple[int, int, int] = (255, 255, 255)
    white: float | None = None

    def record(self) -> dict[str, str | float]:
        """The settings as a side file has them; a white that was not given is left out."""
        record: dict[str, str | float] = {"background": "#" + bytes(self.background).hex()}
        return record if self.white is None else {**record, "white": self.white}


AS_IT_IS = Rendering()
"""A white background, and the whites of the formats."""


def to_rgb(image: Image.Image, rendering: Rendering, *, is_upright: bool = False) -> Decoded:
    """The image as RGB bytes, turned by its EXIF orientation unless `is_upright`.

    Raises:
        ValueError: a mode that cannot be converted to RGB bytes, or values above the stated white.
    """
    stored, turned = _stored_mode(image), _tag(image, _ORIENTATION)
    image.load()  # before EXIF is asked for: that decodes a PNG, and its errors must not pass for EXIF's
    turn = 1 if is_upright else _orientation(image)
    change = Change.TURNED if turn != 1 or turned in range(2, 9) else Change(0)  # Pillow turns TIFFs itself
    if image.mode not in _DEEP and _SIGNED in (_tag(image, _SAMPLE_FORMAT) or ()):
        raise ValueError(
            "expected values from 0 to 255, got signed ones from -128 to 127; save the image as RGB or grey"
        )
    if image.mode in _DEEP:
        pixels, more = _deep(image, rendering)
    elif image.mode in _PLAIN | _WITH_ALPHA:
        pixels, more = _plain(image, stored, rendering)
    else:
        raise ValueError(f"expected grey, colour or a palette, got mode {image.mode}; save the image as RGB")
    return Decoded(upright(pixels, turn), change | more)


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The image (H, W, 3), turned and flipped according to its EXIF orientation (1 to 8)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # whatever damaged EXIF leads to: it says nothing, as for every viewer
        return 1
    return value if value in range(1, 9) else 1


def _stored_mode(image: Image.Image) -> str:
    """The pixel format in the file, such as "L;4" for four bits; known only before decoding."""
    tiles = getattr(image, "tile", [])
    arguments = tiles[0].args if tiles else ""
    return arguments if isinstance(arguments, str) else str(arguments[0])


def _plain(image: Image.Image, stored: str, rendering: Rendering) -> tuple[NDArray[np.uint8], Change]:
    if not image.has_transparency_data:
        return np.array(image.convert("RGB")), Change(0)
    if (key := image.info.get("transparency")) is not None and image.mode in ("L", "RGB"):
        return _with_key(np.array(image.convert("RGB")), key, stored, rendering)
    rgba = np.array(image.convert(_UNMULTIPLIED.get(image.mode, image.mode)).convert("RGBA"))
    return _laid(rgba[..., :3], rgba[..., 3:], rendering)


def _with_key(
    pixels: NDArray[np.uint8], key: Any, stored: str, rendering: Rendering
) -> tuple[NDArray[np.uint8], Change]:
    """Handles one transparent colour, which PNG states in the file's bits and Pillow scales to eight."""
    if stored == "RGB;16B":
        raise ValueError(
            "expected 8 bits per channel in an image with a transparent colour, got 16; save it with an "
            "alpha channel"
        )
    largest = {"L;2": 3, "L;4": 15}.get(stored, 255)
    colour = np.atleast_1d(np.asarray(key, dtype=np.int64)) * (255 // largest)
    is_clear = (pixels == colour).all(axis=2, keepdims=True)
    return _laid(pixels, np.where(is_clear, 0, 255).astype(np.uint8), rendering)


def _laid(
    rgb: NDArray[np.uint8], alpha: NDArray[np.uint8], rendering: Rendering
) -> tuple[NDArray[np.uint8], Change]:
    """alpha·rgb + (1 − alpha)·background, rounded; an opaque image is unchanged."""
    if (alpha == 255).all():
        return np.ascontiguousarray(rgb), Change(0)
    weight, ground = alpha.astype(np.uint16), np.array(rendering.background, dtype=np.uint16)
    return ((rgb * weight + ground * (255 - weight) + 127) // 255).astype(np.uint8), Change.LAID


def _deep(image: Image.Image, rendering: Rendering) -> tuple[NDArray[np.uint8], Change]:
    """Grey of more than 8 bits: value / white · 255, rounded."""
    # A PGM's header states its own white, which Pillow has scaled to 65535: the user's is that of the others.
    is_pgm = image.format == "PPM" and image.mode == "I"
    white = (None if is_pgm else rendering.white) or _stated_white(image)
    if white is None:
        raise ValueError(
            "expected grey values with a known maximum, got "
            f"{'floats' if image.mode == 'F' else 'integers'} without one (mode {image.mode}); state it "
            "with data write --white, or save the image in 16 bits"
        )
    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= white):  # also where there are NaNs
        raise ValueError(f"expected values from 0 to {white:g} (white), got {low:g} to {high:g}")
    if _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = white - values
    grey = np.floor(values * (255 / white) + 0.5).astype(np.uint8)
    change = Change.SCALED | (Change.DIM if grey.max() < _DIM else Change(0))
    pixels = np.repeat(grey[..., None], 3, axis=2)
    if (key := image.info.get("transparency")) is None:
        return pixels, change
    alpha = np.where(np.asarray(image) == key, 0, 255).astype(np.uint8)
    pixels, more = _laid(pixels, alpha[..., None], rendering)
    return pixels, change | more


def _stated_white(image: Image.Image) -> float | None:
    """The largest value that the format can hold, 2^bits − 1; Pillow scales PGM's own maximum to 65535."""
    if image.mode == "F":
        return None
    if image.mode == "I":
        return 65535.0 if image.format in ("PPM", "PNG") else None
    bits = _tag(image, _BITS_PER_SAMPLE) or (16,)
    return float((1 << bits[0]) - 1)


def _tag(image: Image.Image, number: int) -> Any:
    return image.tag_v2.get(number) if image.format == "TIFF" else None  # type: ignore[attr-defined]
