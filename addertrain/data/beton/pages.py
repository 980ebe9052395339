"""Writes the pages of a .beton one after the other, and finally the index around them."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from addertrain.data.beton.encode import Stored
from addertrain.data.beton.format import (
    ALLOCATION,
    FIELD,
    HEADER,
    IMAGE_FIELD,
    INTEGER_FIELD,
    VERSION,
    row_type,
)
from addertrain.data.beton.journal import Page, Row
from addertrain.data.file_locks import lock
from addertrain.errors import DataError

_FIELDS = {"image": IMAGE_FIELD, "label": INTEGER_FIELD, "checksum": INTEGER_FIELD}
_ROW = row_type(list(_FIELDS.values()))
_ROWS_START = HEADER.itemsize + len(_FIELDS) * FIELD.itemsize


class PageFile:
    """A file that grows page by page; space for the index of `capacity` samples is reserved before the pages.

    Raises:
        DataError: another process writes it.
    """

    def __init__(self, path: Path, *, page_size: int, capacity: int) -> None:
        self.path, self.page_size = path, page_size
        index_bytes = _ROWS_START + capacity * _ROW.itemsize
        self.data_start = -(-index_bytes // page_size) * page_size
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            state = lock(self._file)
        except OSError:
            os.close(self._file)
            raise
        if state == "held":
            os.close(self._file)
            raise DataError(f"{path}: another process is writing this file; wait for it, or end it")
        self.is_locked = state == "locked"
        self._content = bytearray()
        self._rows: list[Row] = []
        self.num_pages = 0

    def has_page(self, number: int, page: Page) -> bool:
        """Whether the page on the disk is the recorded one."""
        content = os.pread(self._file, self.page_size, self.data_start + number * self.page_size)
        return hashlib.sha256(content).hexdigest() == page.sha256

    def add(self, sample: int, label: int, stored: Stored, note: Callable[[Page], None]) -> None:
        """Puts an image into this page, or into the next one; `note` is called for pages that are written."""
        size = len(stored.content)
        assert size <= self.page_size, "store_part names images that no page holds"
        if len(self._content) + size > self.page_size:
            self.flush(note)
        offset = self.data_start + self.num_pages * self.page_size + len(self._content)
        self._content += stored.content
        self._rows.append(
            Row(
                sample=sample,
                label=label,
                mode=stored.mode,
                height=stored.height,
                width=stored.width,
                offset=offset,
                size=size,
                checksum=stored.checksum,
                change=stored.change,
            )
        )

    def stored(self, row: Row) -> Stored:
        """An image that is on the disk."""
        content = os.pread(self._file, row.size, row.offset)
        return Stored(row.mode, row.height, row.width, row.checksum, content, row.change)

    def flush(self, note: Callable[[Page], None]) -> None:
        """Writes the current page if it is not empty."""
        if not self._rows:
            return
        content = bytes(self._content).ljust(self.page_size, b"\0")
        self._write(content, self.data_start + self.num_pages * self.page_size)
        os.fsync(self._file)
        note(Page(hashlib.sha256(content).hexdigest(), self._rows))
        self.num_pages += 1
        self._content, self._rows = bytearray(), []

    def finish(self, rows: list[Row]) -> None:
        """Writes the index of these rows, whose order is that of the samples, and flushes everything."""
        table_start = self.data_start + self.num_pages * self.page_size
        table = _allocations(rows).tobytes()
        self._write(_index(rows, self.page_size, table_start), 0)
        self._write(table, table_start)
        os.ftruncate(self._file, table_start + len(table))
        os.fsync(self._file)

    def close(self) -> None:
        """Closes the file and releases its lock."""
        os.close(self._file)

    def _write(self, content: bytes, start: int) -> None:
        view = memoryview(content)
        while view:
            written = os.pwrite(self._file, view, start)
            view, start = view[written:], start + written


def _index(rows: list[Row], page_size: int, table_start: int) -> bytes:
    """Header, field descriptors and one row a sample."""
    header = np.zeros(1, dtype=HEADER)
    header["version"], header["num_fields"], header["page_size"] = VERSION, len(_FIELDS), page_size
    header["num_samples"], header["alloc_table_ptr"] = len(rows), table_start
    fields = np.zeros(len(_FIELDS), dtype=FIELD)
    for field, (name, type_id) in zip(fields, _FIELDS.items(), strict=True):
        field["type_id"] = type_id
        field["name"][: len(name)] = np.frombuffer(name.encode(), dtype=np.uint8)
    metadata = np.zeros(len(rows), dtype=_ROW)
    image = metadata["f0"]
    image["mode"], image["height"] = _column(rows, "mode"), _column(rows, "height")
    image["width"], image["data_ptr"] = _column(rows, "width"), _column(rows, "offset")
    metadata["f1"] = _column(rows, "label")
    metadata["f2"] = _column(rows, "checksum").view(np.int64)
    return header.tobytes() + fields.tobytes() + metadata.tobytes()


def _allocations(rows: list[Row]) -> NDArray[Any]:
    table = np.zeros(len(rows), dtype=ALLOCATION)
    table["sample_id"] = np.arange(len(rows))
    table["ptr"], table["size"] = _column(rows, "offset"), _column(rows, "size")
    return table


def _column(rows: list[Row], name: str) -> NDArray[np.uint64]:
    return np.array([getattr(row, name) for row in rows], dtype=np.uint64)
