"""What a .beton holds, in lines for a person."""

import numpy as np

from addertrain.data.beton.format import JPEG, BetonIndex
from addertrain.data.beton.side_file import SideFile


def describe(side: SideFile, index: BetonIndex) -> list[str]:
    """Count, classes, forms, sizes, origin, and which pictures were left out."""
    counts = np.bincount(index.labels, minlength=len(side.classes))
    share = float(np.mean(index.modes == JPEG))
    form = {0.0: "raw", 1.0: "jpg"}.get(share, f"{100 * share:.1f} % jpg, the rest raw")
    unused = {"jpg": ("proportion",), "raw": ("proportion", "quality")}.get(
        side.settings.get("format", ""), ()
    )
    settings = ", ".join(f"{name} {value}" for name, value in side.settings.items() if name not in unused)
    what = "every image and every page" if len(index.checksums) else "every page"
    lines = [
        f"samples    {len(index)} of {len(side.classes)} classes ({counts.min()} to {counts.max()} a class)",
        f"images     {form}, {np.mean(index.sizes) / 1e3:.1f} kB on average, at most "
        f"{index.heights.max()} x {index.widths.max()} pixels",
        f"file       {index.num_bytes / 1e9:.3f} GB in {len(side.page_sha256)} pages of "
        f"{index.page_size / 2**20:g} MiB",
        f"checksums  of {what}; of the index {index.sha256}",
        f"source     {side.source}",
        f"written    with addertrain {side.addertrain}{': ' if settings else ''}{settings}",
        *(f"remark     {line}" for line in side.remarks),
        f"left out   {len(side.skipped)} that could not be stored",
    ]
    return lines + [f"           {name}: {reason}" for name, reason in side.skipped]
