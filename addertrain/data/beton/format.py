"""FFCV's file format, version 2 (a .beton): its layout, and a check that a file is complete.

    header | field descriptors | metadata, one row a sample | padding | pages of image data | allocation table

A row holds the mode, size and place of an image, and its label. Files written here have a third field, the
checksum of the image's bytes. FFCV itself makes few of these checks: it reads past the end of truncated
tables and files.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from addertrain.errors import DataError

VERSION = 2
HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
FIELD = np.dtype([("type_id", "<u1"), ("name", ("<u1", 16)), ("arguments", ("<u1", (1024,)))], align=True)
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
INTEGER_FIELD, IMAGE_FIELD = 1, 2
_FIELD_TYPES: dict[int, Any] = {0: np.dtype("<f8"), INTEGER_FIELD: np.dtype("<i8"), IMAGE_FIELD: IMAGE}
JPEG, RAW = 0, 1  # modes of an image
_MAX_FIELDS = 64


def row_type(type_ids: list[int]) -> np.dtype[Any]:
    """The data type of a row: f0, f1, ... in the order of the fields."""
    return np.dtype([("", _FIELD_TYPES[type_id]) for type_id in type_ids], align=True)


@dataclass(frozen=True, eq=False, kw_only=True)
class BetonIndex:
    """Everything in a .beton except the images: arrays with one entry per sample, and the places of the
    sections.
    """

    path: Path
    offsets: NDArray[np.uint64]
    sizes: NDArray[np.uint64]
    modes: NDArray[np.uint8]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    labels: NDArray[np.int64]
    checksums: NDArray[np.uint64]  # empty where the file has none
    page_size: int
    data_start: int
    data_end: int
    num_bytes: int
    sha256: str  # of everything but the pages

    def __len__(self) -> int:
        return len(self.labels)


def image_checksum(encoded: NDArray[np.uint8]) -> int:
    """The sum of the image's 64-bit words (the last one padded with zeros), each hashed with its position.

    A change within one word always changes the sum; reading it takes a hundredth of the time of decoding.
    """
    words = np.frombuffer(encoded.tobytes() + bytes(-len(encoded) % 8), dtype="<u8")
    places = 2 * np.arange(len(words), dtype=np.uint64) + np.uint64(1)
    mixed = (words ^ (words >> np.uint64(29))) * np.uint64(CHECKSUM_FACTOR)
    return int((mixed ^ (mixed >> np.uint64(32))) @ places)


CHECKSUM_FACTOR = 0x9E3779B97F4A7C15  # odd: multiplying by it loses nothing


def read_index(path: Path) -> BetonIndex:
    """Reads and checks everything except the images; ImageNet's 1.28 M rows take a fraction of a second.

    Raises:
        DataError: the file is missing, has another format, is truncated, or contradicts itself.
    """
    try:
        with path.open("rb") as file:
            num_bytes = file.seek(0, 2)
            return _Parse(path, file, num_bytes).index()
    except OSError as error:
        raise DataError(
            f"{path}: expected a .beton file, got: {error.strerror}; write one with addertrain data write, "
            "or choose data.loader: torchvision"
        ) from None


class _Parse:
    """Reads an open file from front to back."""

    def __init__(self, path: Path, file: Any, num_bytes: int) -> None:
        self.path, self.file, self.num_bytes = path, file, num_bytes
        self.digest = hashlib.sha256()

    def index(self) -> BetonIndex:
        self.expect(self.num_bytes >= HEADER.itemsize, "a header", f"a file of {self.num_bytes} bytes")
        header = self.table(HEADER, 0, 1)[0]
        self.expect(
            header["version"] == VERSION and 0 < header["num_fields"] <= _MAX_FIELDS,
            f"a .beton of version {VERSION}",
            f"version {header['version']} with {header['num_fields']} fields",
        )
        page_size, num_samples = int(header["page_size"]), int(header["num_samples"])
        data_end = int(header["alloc_table_ptr"])
        self.expect(num_samples > 0, "at least one sample", "none")
        is_power = page_size >= 4096 and page_size & (page_size - 1) == 0
        self.expect(is_power, "pages of a power of two", f"{page_size} bytes")
        self.expect(
            data_end + num_samples * ALLOCATION.itemsize == self.num_bytes,
            f"{data_end + num_samples * ALLOCATION.itemsize} bytes for {num_samples} samples",
            f"{self.num_bytes}: it is cut short or was never finished",
        )
        fields = self.table(FIELD, HEADER.itemsize, int(header["num_fields"]))
        rows_start = HEADER.itemsize + fields.nbytes
        columns = self.columns(fields, rows_start, num_samples, data_end)
        data_start = -(-(rows_start + columns.pop("row_bytes") * num_samples) // page_size) * page_size
        index = BetonIndex(
            path=self.path,
            **columns,
            **self.places(columns["offsets"], data_end, num_samples),
            page_size=page_size,
            data_start=data_start,
            data_end=data_end,
            num_bytes=self.num_bytes,
            sha256=self.digest.hexdigest(),
        )
        self.check_images(index)
        return index

    def columns(self, fields: NDArray[Any], start: int, num_samples: int, data_end: int) -> dict[str, Any]:
        """The metadata, by the fields' kinds and names."""
        type_ids = fields["type_id"].tolist()
        names = [bytes(name).split(b"\0")[0].decode("ascii", "replace") for name in fields["name"]]
        kinds = dict(zip(names, type_ids, strict=True))
        images = [name for name, type_id in kinds.items() if type_id == IMAGE_FIELD]
        self.expect(
            len(images) == 1 and kinds.get("label") == INTEGER_FIELD and set(type_ids) <= set(_FIELD_TYPES),
            "one field of RGB images and an integer field 'label'",
            ", ".join(f"'{name}' of type {type_id}" for name, type_id in kinds.items()),
        )
        dtype = row_type(type_ids)
        self.expect(
            start + num_samples * dtype.itemsize <= data_end,
            f"the rows of {num_samples} samples before the image data",
            f"image data that end at byte {data_end}",
        )
        rows = self.table(dtype, start, num_samples)
        image = rows[f"f{names.index(images[0])}"]
        checksums: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        if kinds.get("checksum") == INTEGER_FIELD:
            checksums = rows[f"f{names.index('checksum')}"]
        return {
            "row_bytes": dtype.itemsize,
            "offsets": np.ascontiguousarray(image["data_ptr"]),
            "modes": np.ascontiguousarray(image["mode"]),
            "heights": image["height"].astype(np.int64),
            "widths": image["width"].astype(np.int64),
            "labels": rows[f"f{names.index('label')}"].astype(np.int64),
            "checksums": np.ascontiguousarray(checksums).view(np.uint64),
        }

    def places(self, offsets: NDArray[np.uint64], data_end: int, num_samples: int) -> dict[str, Any]:
        """The sizes by sample, from a table in any order."""
        table = self.table(ALLOCATION, data_end, num_samples)
        ids = table["sample_id"]
        is_known = bool((ids < num_samples).all()) and len(np.unique(ids)) == num_samples
        self.expect(is_known, "every sample once in the allocation table", "some twice or unknown")
        sizes, starts = np.empty(num_samples, dtype=np.uint64), np.empty(num_samples, dtype=np.uint64)
        sizes[ids], starts[ids] = table["size"], table["ptr"]
        self.expect_all(starts == offsets, "the place of an image in the table as in its row", starts)
        return {"sizes": sizes}

    def check_images(self, index: BetonIndex) -> None:
        """Checks that the places are inside the data and the sizes are plausible."""
        sizes, area = index.sizes, (index.heights * index.widths * 3).astype(np.uint64)
        starts = index.offsets
        fits = (starts < index.data_end) & (sizes > 0) & (sizes <= np.uint64(index.data_end) - starts)
        self.expect_all(fits & (starts >= HEADER.itemsize), "an image inside the image data", starts)
        is_mode = (index.modes == JPEG) | (index.modes == RAW)
        self.expect_all(is_mode, "mode 0 (jpg) or 1 (raw)", index.modes)
        self.expect_all(area > 0, "an image of at least one pixel", area)
        is_whole = (index.modes == JPEG) | (sizes == area)
        self.expect_all(is_whole, "height x width x 3 bytes of a raw image", sizes)

    def table(self, dtype: np.dtype[Any], start: int, count: int) -> NDArray[Any]:
        """`count` entries from byte `start` on, which also enter the checksum."""
        num_bytes = dtype.itemsize * count
        # Asked before it is read: a damaged count must not ask for terabytes.
        self.expect(start + num_bytes <= self.num_bytes, f"{start + num_bytes} bytes", f"{self.num_bytes}")
        self.file.seek(start)
        content = self.file.read(num_bytes)
        self.expect(len(content) == num_bytes, f"{num_bytes} bytes from {start} on", f"{len(content)}")
        self.digest.update(content)
        return np.frombuffer(content, dtype=dtype)

    def expect_all(self, is_fine: NDArray[np.bool_], expected: str, got: NDArray[Any]) -> None:
        """Raises an error that names the first sample with a fault."""
        if not is_fine.all():
            wrong = int(np.argmin(is_fine))
            self.expect(False, expected, f"{got[wrong]} for sample {wrong}")

    def expect(self, is_fine: bool, expected: str, got: str) -> None:
        """Raises the DataError of this module."""
        if not is_fine:
            raise DataError(
                f"{self.path}: expected {expected}, got {got}; write it again (addertrain data write)"
            )
