"""Encodes one image for a .beton; runs in the processes that `write` starts."""

import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from addertrain.data.beton.format import JPEG, RAW, image_checksum
from addertrain.data.beton.kept import dividing_interval, kept_jpeg
from addertrain.data.decoding.modes import Change
from addertrain.data.randomness import Stream, draw, uniforms
from addertrain.data.sources.source import PictureSource
from addertrain.errors import DataError, PictureError

_MAX_SIDE = 65500  # of a JPEG, by libjpeg
_MACROBLOCK = 16  # pixels of one, in the 4:2:0 that Pillow writes
_EXACT_ENOUGH = 97  # the highest quality that libjpeg's manual trusts its fast inverse transform with


@dataclass(frozen=True, kw_only=True)
class BetonSettings:
    """How images are stored.

    Args:
        format: JPEG, raw pixels, or a fraction `proportion` as JPEG and the rest raw.
        max_size: images are shrunk so that the longer side has this many pixels; None shrinks none.
        quality: of the JPEGs; above 97 FFCV's fast inverse transform loses the gain.
        restart_interval: macroblocks of a JPEG between restart markers, which let a crop be extracted before
            it is decoded; lower if it does not divide a row; 0 writes none.
        jpegs: how JPEGs that are not shrunk are stored: "compressed" again like other images, "kept" with
            their own coefficients and with restart markers, or "unmarked", kept byte for byte.
        page_size: bytes; an image never spans two pages.
    """

    format: Literal["jpg", "raw", "proportion"] = "jpg"
    max_size: int | None = 400
    quality: int = 90
    restart_interval: int = 2
    jpegs: Literal["compressed", "kept", "unmarked"] = "compressed"
    proportion: float = 0.5
    page_size: int = 8 << 20

    def __post_init__(self) -> None:
        is_page = self.page_size >= 4096 and self.page_size & (self.page_size - 1) == 0
        for name, is_fine, expected in (
            ("max_size", self.max_size is None or 8 <= self.max_size < 65536, "8 to 65535 pixels"),
            ("quality", 1 <= self.quality <= 100, "1 to 100"),
            ("restart_interval", 0 <= self.restart_interval < 65536, "0 to 65535 macroblocks"),
            (
                "jpegs",
                self.jpegs == "compressed"
                or (self.format != "raw" and (self.jpegs == "unmarked" or self.restart_interval > 0)),
                "kept JPEGs in a file that holds some, and an interval for their markers or jpegs='unmarked'",
            ),
            ("proportion", 0 <= self.proportion <= 1, "0 to 1"),
            ("page_size", is_page and self.page_size < 1 << 32, "a power of two from 4096 to 2^31 bytes"),
        ):
            if not is_fine:
                raise DataError(f"{name}: expected {expected}, got {getattr(self, name)}")

    @property
    def remarks(self) -> tuple[str, ...]:
        """Remarks on these settings for the user."""
        if self.format == "raw" or self.quality <= _EXACT_ENOUGH:
            return ()
        return (
            f"quality {self.quality}: FFCV decodes JPEGs of 98 to 100 hardly better than of {_EXACT_ENOUGH} "
            "(37.4, 37.5, 37.3 dB after 37.2 on photographs; other decoders reach 40.7), "
            "single pixels worse: --format raw is exact",
        )


class Stored(NamedTuple):
    """An encoded image, and the contents of its row."""

    mode: int
    height: int
    width: int
    checksum: int
    content: bytes
    change: int = 0  # how the image was changed, `picture_modes.Change`


def store(picture: NDArray[np.uint8], settings: BetonSettings, *, sample: int) -> Stored:
    """Shrinks and encodes an image (H, W, 3); with `proportion`, `sample` decides between JPEG and raw."""
    picture = shrunk(picture, settings.max_size)
    mode = stored_mode(settings, sample)
    content = np.ascontiguousarray(picture).reshape(-1)
    if mode == JPEG:
        stream = io.BytesIO()
        Image.fromarray(picture).save(
            stream,
            "JPEG",
            quality=settings.quality,
            restart_marker_blocks=dividing_interval(
                -(-picture.shape[1] // _MACROBLOCK), settings.restart_interval
            ),
        )
        content = np.frombuffer(stream.getbuffer(), dtype=np.uint8)
    height, width = picture.shape[:2]
    return Stored(mode, height, width, image_checksum(content), content.tobytes())


def stored_mode(settings: BetonSettings, sample: int) -> int:
    """Whether an image is stored as JPEG or raw, which depends on its number only."""
    if settings.format != "proportion":
        return JPEG if settings.format == "jpg" else RAW
    chance = uniforms(draw(0, 0, np.array([sample]), Stream.STORED_FORM))[0]
    return JPEG if chance < settings.proportion else RAW


def shrunk(picture: NDArray[np.uint8], max_size: int | None) -> NDArray[np.uint8]:
    """The image, shrunk so that its longer side is `max_size` if it was longer."""
    height, width = shrunk_size(picture.shape[0], picture.shape[1], max_size)
    if (height, width) == picture.shape[:2]:
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def shrunk_size(height: int, width: int, max_size: int | None) -> tuple[int, int]:
    """Height and width of an image that is shrunk to `max_size` if it was larger."""
    if max_size is None or max(height, width) <= max_size:
        return height, width
    ratio = max_size / max(height, width)
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def store_part(source: PictureSource, samples: Sequence[int], settings: BetonSettings) -> list[Stored | str]:
    """The images of a small source, which are the numbers `samples` of all; a text says why one is
    missing.
    """
    return [_store_one(source, k, sample, settings) for k, sample in enumerate(samples)]


def too_large(num_bytes: int, page_size: int) -> str:
    """Says that an image is too large for a page."""
    page_mib = 1 << max(0, (num_bytes - 1).bit_length() - 20)
    return (
        f"expected at most {page_size} bytes an image, which is a page, got {num_bytes} "
        f"(--page-mib {page_mib} holds it, --max-size makes it smaller)"
    )


def _store_one(source: PictureSource, k: int, sample: int, settings: BetonSettings) -> Stored | str:
    try:
        pixels, change = source.picture(k)
        kept = _kept(source, k, pixels, settings, sample)
        if kept is not None:
            return kept._replace(change=int(change | Change.KEPT))
        pixels = shrunk(pixels, settings.max_size)
        height, width = pixels.shape[:2]
        if max(height, width) > _MAX_SIDE:
            return (
                f"expected sides of at most {_MAX_SIDE} pixels, got {width} x {height} "
                "(--max-size brings them down)"
            )
        stored = store(pixels, settings, sample=sample)._replace(change=int(change))
    except PictureError as error:
        return error.reason
    except Exception as error:  # whatever reading or encoding one picture leads to is that picture's
        return f"{type(error).__name__}: {error}"
    size = len(stored.content)
    return stored if size <= settings.page_size else too_large(size, settings.page_size)


def _kept(
    source: PictureSource, k: int, pixels: NDArray[np.uint8], settings: BetonSettings, sample: int
) -> Stored | None:
    """The JPEG of an image that is not compressed again; None for others, and if it is too large for a
    page.
    """
    height, width = pixels.shape[:2]
    is_wanted = settings.jpegs != "compressed" and stored_mode(settings, sample) == JPEG
    if not is_wanted or shrunk_size(height, width, settings.max_size) != (height, width):
        return None
    encoded = source.encoded(k)
    interval = settings.restart_interval if settings.jpegs == "kept" else 0
    content = None if encoded is None else kept_jpeg(encoded, pixels, interval=interval)
    if content is None or len(content) > settings.page_size:
        return None
    return Stored(JPEG, height, width, image_checksum(np.frombuffer(content, dtype=np.uint8)), content)


def begin_worker() -> None:
    """The start of a worker process: it ignores Ctrl-C, and ends when its parent has died."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.join,), daemon=True).start()


def _end_with(wait_for_parent: Callable[[], None]) -> None:
    wait_for_parent()
    os._exit(1)
