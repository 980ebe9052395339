"""Checks whether a .beton is intact: its structure in seconds, all pages and images in minutes."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import addertrain
from addertrain.data.beton.format import JPEG, BetonIndex, image_checksum, read_index
from addertrain.data.beton.kept import dividing_interval
from addertrain.data.beton.side_file import SideFile, side_path
from addertrain.data.decoding import jpeg
from addertrain.data.loaders.workers import Workers
from addertrain.data.sources.source import check_labels
from addertrain.durable import write_text
from addertrain.errors import DataError, PictureError

_PAGES_AHEAD = 2  # for each thread

Progress = Callable[[int, int], None]
"""Is told of pages done and pages in all."""


def verify_structure(path: Path) -> tuple[SideFile, BetonIndex]:
    """Reads and checks the side file and everything in the .beton except the images.

    Raises:
        DataError: something is missing, contradicts itself, or differs from what was written.
    """
    side, index = SideFile.read(path), read_index(path)
    side.check(index)
    if len(side.page_sha256) != _num_pages(index):
        raise DataError(
            f"{side_path(path)}: expected checksums of {_num_pages(index)} pages, got "
            f"{len(side.page_sha256)}; write both files again"
        )
    return side, index


def verify_images(
    path: Path, *, num_threads: int = 1, progress: Progress = lambda done, total: None
) -> list[str]:
    """One line for every damaged page and image of a file whose structure is intact.

    Raises:
        DataError: see `verify_structure`.
    """
    side, index = verify_structure(path)
    complaints = []
    interval = side.settings.get("restart_interval")  # earlier versions wrote none
    if side.settings.get("jpegs") == "unmarked":
        interval = None  # of what is kept byte for byte
    for number, page in enumerate(_pages(index, num_threads, progress, interval)):
        if page.sha256 != side.page_sha256[number]:
            complaints.append(f"{path}: page {number}: its checksum differs from the side file's")
        complaints += page.complaints
    return complaints


def adopt(path: Path, *, num_threads: int = 1, progress: Progress = lambda done, total: None) -> SideFile:
    """Checks every image of another program's .beton and writes the side file that it lacks.

    Raises:
        DataError: there is a side file already, or the .beton is damaged.
    """
    if side_path(path).exists():
        raise DataError(f"{side_path(path)}: expected no side file for --adopt, got one; leave --adopt out")
    index = read_index(path)
    num_classes = int(index.labels.max()) + 1
    check_labels(index.labels, num_classes, where=path)
    pages = list(_pages(index, num_threads, progress))
    complaints = [line for page in pages for line in page.complaints]
    if complaints:
        raise DataError(f"{complaints[0]} ({len(complaints) - 1} more like this)")
    side = SideFile(
        count=len(index),
        num_bytes=index.num_bytes,
        classes=tuple(str(label) for label in range(num_classes)),
        source="another program's .beton",
        settings={},
        skipped=(),
        page_size=index.page_size,
        index_sha256=index.sha256,
        page_sha256=tuple(page.sha256 for page in pages),
        addertrain=addertrain.__version__,
        marked_jpegs=sum(page.num_marked for page in pages),
    )
    write_text(side_path(path), side.to_json())
    return side


def _num_pages(index: BetonIndex) -> int:
    return -(-(index.data_end - index.data_start) // index.page_size)


def _pages(
    index: BetonIndex, num_threads: int, progress: Progress, interval: int | None = None
) -> Iterator["_Page"]:
    """The findings on every page; page by page, so that each is read once."""
    numbers = (index.offsets.astype(np.int64) - index.data_start) // index.page_size
    order = np.argsort(numbers, kind="stable")
    num_pages = _num_pages(index)
    starts = np.searchsorted(numbers[order], np.arange(num_pages + 1))
    file = os.open(index.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with closing(Workers(num_threads, name="verify")) as workers:
            checks: list[Future[_Page]] = []
            for page in range(num_pages):
                samples = order[starts[page] : starts[page + 1]]
                checks.append(workers.submit(_check_page, file, index, page, samples, interval))
                done = page - _PAGES_AHEAD * num_threads
                if done >= 0:
                    yield checks[done].result()
                    progress(done + 1, num_pages)
            for done in range(max(0, num_pages - _PAGES_AHEAD * num_threads), num_pages):
                yield checks[done].result()
                progress(done + 1, num_pages)
    finally:
        os.close(file)


class _Page(NamedTuple):
    """A page's SHA-256, what is wrong with its images, and how many have markers that divide their rows."""

    sha256: str
    complaints: list[str]
    num_marked: int


def _check_page(
    file: int, index: BetonIndex, page: int, samples: NDArray[np.int64], interval: int | None
) -> _Page:
    start = index.data_start + page * index.page_size
    content = os.pread(file, min(index.page_size, index.data_end - start), start)
    found, num_marked = [], 0
    for sample in samples.tolist():
        first = int(index.offsets[sample]) - start
        encoded = content[first : first + int(index.sizes[sample])]
        if problem := _problem(index, sample, encoded, interval):
            found.append(f"{index.path}: sample {sample}: {problem}")
        head = jpeg.read_head(encoded) if index.modes[sample] == JPEG else None
        num_marked += head is not None and head.can_be_cut
    return _Page(hashlib.sha256(content).hexdigest(), found, num_marked)


def _problem(index: BetonIndex, sample: int, encoded: bytes, interval: int | None) -> str | None:
    """The fault of an image, or None."""
    if len(encoded) != index.sizes[sample]:
        return f"expected {index.sizes[sample]} bytes, got {len(encoded)}"
    content = np.frombuffer(encoded, dtype=np.uint8)
    if len(index.checksums) and image_checksum(content) != index.checksums[sample]:
        return "expected the image that was written, got another (its checksum differs)"
    if index.modes[sample] == JPEG:
        return _jpeg_problem(encoded, int(index.heights[sample]), int(index.widths[sample]), interval)
    return None


def _jpeg_problem(encoded: bytes, height: int, width: int, interval: int | None) -> str | None:
    """The fault that the decoder of training would report; without FFCV, that of the other decoders."""
    # Here: torchvision takes seconds to import, which the structure does not need.
    from addertrain.data.beton import reader
    from addertrain.data.decoding.picture import decode_picture

    head = jpeg.read_head(encoded) if encoded.startswith(jpeg.START) else None
    if head is None:
        return f"expected a JPEG, got {len(encoded)} other bytes"
    if (head.height, head.width) != (height, width):
        return f"expected {height} x {width} pixels, got {head.height} x {head.width}"
    if head.channels == 4:
        return (
            "expected a JPEG in RGB or grey, got CMYK or YCCK, which FFCV cannot decode; write the file again"
        )
    wanted = head.restart_interval if interval is None else dividing_interval(head.columns, interval)
    if head.restart_interval != wanted:
        return (
            f"expected an interval of {wanted} macroblocks between restart markers, by the side file, "
            f"got {head.restart_interval}; write the file again"
        )
    # Not where libjpeg warns, as it does of markers that are missing or out of turn.
    is_decodable = reader.decode(encoded, np.empty((height, width, 3), dtype=np.uint8))
    if is_decodable and jpeg.hole(head) is None:
        return None
    try:
        decode_picture(encoded, name="image")
    except PictureError as error:
        return error.reason
    return "expected a JPEG that FFCV decodes, got one that only others do" if is_decodable is False else None
