"""Reads .beton files with FFCV's compiled decoder, and adds what it lacks: checks, seeking and errors.

This uses FFCV's file format and its library, which contains turbojpeg and OpenCV, but not its Loader, which
takes seconds to compile in every process, hangs when a thread fails, cannot seek, and decodes into buffers of
complete batches. No other file imports the package.
"""

import ctypes
import functools
import importlib.util
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from addertrain.data.beton import box_shrinker, part_decoder
from addertrain.data.beton.format import BetonIndex, read_index
from addertrain.data.beton.side_file import SideFile
from addertrain.data.crops import Box, Crops
from addertrain.errors import DataError


class BetonReader:
    """The images of a .beton; only the index is held in memory.

    Reads go through the file's descriptor and not through a memory map, so that a file that is truncated or
    unreadable during training raises an error instead of SIGBUS.

    Args:
        index: that of an intact file.
        classes: their names.
        only_ffcv: whether FFCV's library decodes every image completely and resizes it, although faster
            functions exist. The images are the same in both cases.
    """

    def __init__(self, index: BetonIndex, classes: tuple[str, ...], *, only_ffcv: bool = False) -> None:
        self._kernel = _kernel()
        self._decodes_parts = not only_ffcv and _has_part_decoder()
        self._shrinks = not only_ffcv and _has_box_shrinker()
        self._index, self.classes = index, classes
        self._file = os.open(index.path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        self._sides = np.stack([index.heights, index.widths], axis=1)
        self._encoded_bytes = 2 * int(index.sizes.max()) + part_decoder.SCRATCH_TAIL
        self._pixel_bytes = int((index.heights * index.widths).max()) * 3 + box_shrinker.PIXELS_TAIL
        self._scratch = threading.local()

    @classmethod
    def open(cls, path: Path, *, only_ffcv: bool = False) -> "BetonReader":
        """The images of a file that is intact according to its side file.

        Raises:
            DataError: FFCV is missing, or the file is missing, unfinished or damaged.
        """
        side, index = SideFile.read(path), read_index(path)
        side.check(index)
        return cls(index, side.classes, only_ffcv=only_ffcv)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of every image, (N,)."""
        return self._index.labels

    @property
    def index_sha256(self) -> str:
        """Checksum of the places, classes and sizes of all images."""
        return self._index.sha256

    def __len__(self) -> int:
        return len(self._index)

    def check(self) -> None:
        """Raises a DataError if the file was removed, replaced or changed in size since it was opened."""
        now = os.fstat(self._file)
        if now.st_nlink == 0 or now.st_size != self._index.num_bytes:
            what = "removed or replaced" if now.st_nlink == 0 else f"changed to {now.st_size} bytes"
            raise DataError(
                f"{self._index.path}: expected the file of {self._index.num_bytes} bytes that was opened, "
                f"but it was {what} while in use; restore it and resume"
            )

    def read(self, samples: NDArray[np.int64], crops: Crops, images_nhwc: NDArray[np.uint8]) -> None:
        """Fills one image (H, W, 3) for each sample; a DataError names an image that cannot be read."""
        index = self._index
        low, high = int(samples.min()), int(samples.max())
        if low < 0 or high >= len(index):
            raise DataError(
                f"{index.path}: expected sample numbers from 0 to {len(index) - 1}, got {low} to {high}; "
                "number the images of this file"
            )
        sides = self._sides[samples]
        boxes = [crops.box(k, height, width) for k, (height, width) in enumerate(sides.tolist())]
        status = np.full(len(samples), -1, dtype=np.int64)
        encoded, pixels = self._thread_scratch()
        self._kernel.decode_images(
            self._file,
            index.offsets[samples],
            index.sizes[samples].astype(np.int64),
            index.checksums[samples] if len(index.checksums) else index.checksums,
            index.modes[samples],
            sides,
            np.array(boxes, dtype=np.int64).reshape(-1, 4),
            crops.is_flipped,
            encoded,
            pixels,
            images_nhwc,
            status,
            self._decodes_parts,
            self._shrinks,
        )
        if status.any():
            bad = int(np.argmax(status != 0))
            raise DataError(self._complaint(int(samples[bad]), int(status[bad])))

    def _thread_scratch(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Memory of a thread for an encoded image, a region cut out of it, and a decoded image."""
        if not hasattr(self._scratch, "encoded"):
            self._scratch.encoded = np.empty(self._encoded_bytes, dtype=np.uint8)
            self._scratch.pixels = np.empty(self._pixel_bytes, dtype=np.uint8)
        return self._scratch.encoded, self._scratch.pixels

    def _complaint(self, sample: int, status: int) -> str:
        index, kernel = self._index, self._kernel
        got = {
            kernel.CUT_SHORT: "fewer (the file was truncated, or the storage fails)",
            kernel.DAMAGED: "other bytes (their checksum differs)",
            kernel.UNDECODABLE: "bytes that FFCV's decoder does not accept as a JPEG in RGB or grey",
        }[status]
        return (
            f"{index.path}: sample {sample}: expected the {index.sizes[sample]} bytes of an image at "
            f"{index.offsets[sample]}, got {got}; addertrain data verify lists all damage"
        )


def decode(encoded: bytes, pixels: NDArray[np.uint8]) -> bool | None:
    """Fills pixels (H, W, 3) with the decoder that training uses; False if it fails, None without FFCV."""
    try:
        library = ffcv_library()
    except (ImportError, OSError):
        return None
    height, width = pixels.shape[:2]
    sides = [ctypes.c_uint32(side) for side in (height, width)]
    whole = [ctypes.c_uint32(number) for number in (0, 0, 1, 1)]  # the crop's corner, the scale's two parts
    failed = library.imdecode(
        ctypes.c_char_p(encoded), ctypes.c_uint64(len(encoded)), *sides, ctypes.c_void_p(pixels.ctypes.data),
        *sides, *whole, ctypes.c_bool(False), ctypes.c_bool(False),
    )  # fmt: skip
    return not failed


def resize(pixels: NDArray[np.uint8], box: Box, image: NDArray[np.uint8]) -> None:
    """Fills an image (H, W, 3) from a box of pixels (H, W, 3) by FFCV's area interpolation.

    Raises:
        ImportError: no FFCV. OSError: its library does not load.
    """
    numbers = (
        0, pixels.ctypes.data, *pixels.shape[:2],
        box.row, box.row + box.height, box.column, box.column + box.width,
        image.ctypes.data, *image.shape[:2],
    )  # fmt: skip
    ffcv_library().resize(*map(ctypes.c_int64, numbers))


@functools.cache
def ffcv_library() -> Any:
    """FFCV's compiled library.

    Raises:
        ImportError: no FFCV. OSError: its library does not load.
    """
    spec = importlib.util.find_spec("ffcv")
    if spec is None or spec.origin is None:
        raise ImportError("the package ffcv is not installed")
    # Found, not imported: that takes three seconds and a compiler run, and only the library is needed.
    path = next(Path(spec.origin).parent.glob("_libffcv*.so"), None)
    if path is None:
        raise ImportError("the package ffcv has no compiled library")
    return ctypes.CDLL(str(path))


@functools.cache
def _kernel() -> Any:
    """The compiled functions, bound to FFCV's library.

    Raises:
        DataError: FFCV or numba is not installed, or its library does not load.
    """
    # Only loops without threads are compiled here; your own parallel ones in the same process would otherwise
    # get numba's TBB layer, which hung once, or its workqueue, which aborts under two threads.
    os.environ.setdefault("NUMBA_THREADING_LAYER", "omp")
    try:
        library = ffcv_library()
        import llvmlite.binding as llvm

        from addertrain.data.beton import decode_kernel as kernel
    except (ImportError, OSError) as error:
        raise DataError(
            f"data.loader: ffcv needs the packages ffcv 1.0.2 and numba, but: {error}; run launch/setup "
            "all, or choose data.loader: torchvision; see "
            "docs/troubleshooting.md#ffcv-or-deepspeed-is-missing"
        ) from None
    parts = part_decoder.library()
    for symbol, function in (
        (kernel.DECODE_SYMBOL, library.imdecode),
        (kernel.RESIZE_SYMBOL, library.resize),
        # Without it the symbol must still lead somewhere; it is not called.
        (kernel.PART_SYMBOL, library.imdecode if parts is None else parts.addertrain_decode_part),
        (kernel.SHRINK_SYMBOL, library.resize if parts is None else parts.addertrain_shrink_box),
    ):
        llvm.add_symbol(symbol, ctypes.cast(function, ctypes.c_void_p).value)
    return kernel


@functools.cache
def _has_part_decoder() -> bool:
    """Whether a region of a JPEG can be decoded separately, to the same pixels as by FFCV."""
    return part_decoder.gives_the_pixels_of(decode)


@functools.cache
def _has_box_shrinker() -> bool:
    """Whether a box is shrunk here to the same pixels as by FFCV."""
    return box_shrinker.gives_the_pixels_of(resize)
