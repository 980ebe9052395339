"""A .beton of any number of samples whose images are holes in a sparse file: an index and nothing else."""

import hashlib
from pathlib import Path

import numpy as np

from addertrain.data.beton.format import ALLOCATION, FIELD, HEADER, read_index, row_type
from addertrain.data.beton.side_file import SideFile, side_path


def write_synthetic(path: Path, *, num_samples: int, image_bytes: int = 50_000) -> Path:
    """Writes the file and a side file that fits."""
    page_size, row = 8 << 20, row_type([2, 1])
    generator = np.random.default_rng(0)
    fields = np.zeros(2, dtype=FIELD)
    for field, name, type_id in zip(fields, (b"image", b"label"), (2, 1), strict=True):
        field["type_id"], field["name"][: len(name)] = type_id, np.frombuffer(name, dtype=np.uint8)
    rows_start = HEADER.itemsize + fields.nbytes
    data_start = -(-(rows_start + num_samples * row.itemsize) // page_size) * page_size
    by_page = page_size // image_bytes
    numbers = np.arange(num_samples)
    rows = np.zeros(num_samples, dtype=row)
    rows["f0"]["width"], rows["f0"]["height"] = 400, generator.integers(200, 401, num_samples)
    rows["f0"]["data_ptr"] = data_start + numbers // by_page * page_size + numbers % by_page * image_bytes
    rows["f1"] = generator.integers(0, 1000, num_samples)
    num_pages = -(-num_samples // by_page)
    table = np.zeros(num_samples, dtype=ALLOCATION)
    table["sample_id"] = generator.permutation(num_samples)
    table["ptr"], table["size"] = rows["f0"]["data_ptr"][table["sample_id"]], image_bytes
    header = np.zeros(1, dtype=HEADER)
    header["version"], header["num_fields"], header["page_size"] = 2, 2, page_size
    header["num_samples"], header["alloc_table_ptr"] = num_samples, data_start + num_pages * page_size
    with path.open("wb") as file:
        for part in (header, fields, rows):
            file.write(part.tobytes())
        file.seek(int(header["alloc_table_ptr"][0]))
        file.write(table.tobytes())
    index = read_index(path)
    hole = hashlib.sha256(bytes(page_size)).hexdigest()
    side = SideFile(
        count=num_samples,
        num_bytes=index.num_bytes,
        classes=tuple(map(str, range(1000))),
        source="holes",
        settings={},
        skipped=(),
        page_size=page_size,
        index_sha256=index.sha256,
        page_sha256=(hole,) * num_pages,
        addertrain="0",
    )
    side_path(path).write_text(side.to_json())
    return path
