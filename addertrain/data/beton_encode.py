"""One picture as it is stored in a .beton; runs in the processes that `beton_write` starts."""

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

from addertrain.data.beton_format import JPEG, RAW, image_checksum
from addertrain.data.errors import DataError
from addertrain.data.randomness import Stream, draw, uniforms
from addertrain.data.source import PictureSource


@dataclass(frozen=True, kw_only=True)
class BetonSettings:
    """How pictures are stored.

    Args:
        format: JPEGs, raw pixels, or a share of `proportion` in JPEGs and the rest raw.
        max_size: longer sides are brought down to it; None: pictures stay as they are.
        quality: of the JPEGs.
        page_size: bytes; no image lies across two pages.
    """

    format: Literal["jpg", "raw", "proportion"] = "jpg"
    max_size: int | None = 400
    quality: int = 90
    proportion: float = 0.5
    page_size: int = 8 << 20

    def __post_init__(self) -> None:
        is_page = self.page_size >= 4096 and self.page_size & (self.page_size - 1) == 0
        for name, is_fine, expected in (
            ("max_size", self.max_size is None or 8 <= self.max_size < 65536, "8 to 65535 pixels"),
            ("quality", 1 <= self.quality <= 100, "1 to 100"),
            ("proportion", 0 <= self.proportion <= 1, "0 to 1"),
            ("page_size", is_page and self.page_size < 1 << 32, "a power of two from 4096 to 2^31 bytes"),
        ):
            if not is_fine:
                raise DataError(f"{name}: expected {expected}, got {getattr(self, name)}")


class Stored(NamedTuple):
    """An image as it goes into the file, and what its row says of it."""

    mode: int
    height: int
    width: int
    checksum: int
    content: bytes


def store(picture: NDArray[np.uint8], settings: BetonSettings, *, sample: int) -> Stored:
    """Brings a picture (H, W, 3) to its stored size and form; `sample` decides which form by `proportion`."""
    picture = shrunk(picture, settings.max_size)
    mode = {"jpg": JPEG, "raw": RAW}.get(settings.format)
    if mode is None:
        chance = uniforms(draw(0, 0, np.array([sample]), Stream.STORED_FORM))[0]
        mode = JPEG if chance < settings.proportion else RAW
    content = np.ascontiguousarray(picture).reshape(-1)
    if mode == JPEG:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=settings.quality)
        content = np.frombuffer(stream.getbuffer(), dtype=np.uint8)
    height, width = picture.shape[:2]
    return Stored(mode, height, width, image_checksum(content), content.tobytes())


def shrunk(picture: NDArray[np.uint8], max_size: int | None) -> NDArray[np.uint8]:
    """The picture with its longer side at `max_size`, if that is less than it was."""
    height, width = picture.shape[:2]
    if max_size is None or max(height, width) <= max_size:
        return picture
    ratio = max_size / max(height, width)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def store_part(source: PictureSource, samples: Sequence[int], settings: BetonSettings) -> list[Stored | str]:
    """The pictures of a small source, numbers `samples` of the whole; text says why one is missing."""
    return [_store_one(source, k, sample, settings) for k, sample in enumerate(samples)]


def _store_one(source: PictureSource, k: int, sample: int, settings: BetonSettings) -> Stored | str:
    try:
        picture = source.picture(k)
        if max(picture.shape) >= 65536:
            raise DataError(f"{source.name(k)}: expected sides below 65536 pixels, got {picture.shape[:2]}")
        return store(picture, settings, sample=sample)
    except DataError as error:
        return str(error)


def begin_worker() -> None:
    """What a process does first: leaves Ctrl-C to its parent, and ends when that has died."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.join,), daemon=True).start()


def _end_with(wait_for_parent: Callable[[], None]) -> None:
    wait_for_parent()
    os._exit(1)
