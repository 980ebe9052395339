"""The side file of a .beton, which describes it; a .beton without one is treated as unfinished."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from addertrain.data.beton.format import JPEG, BetonIndex
from addertrain.data.sources.source import check_labels
from addertrain.errors import DataError

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class SideFile:
    """What was written, from what, and how.

    `page_sha256` are the checksums of the image data in blocks of `page_size` bytes, `index_sha256` is that
    of the rest of the file; `skipped` names images that could not be stored, with the reason; `remarks` tell
    what was skipped, and how images were changed besides decoding them. `kept_jpegs`
    were stored without being compressed again, and `marked_jpegs` have restart markers; earlier versions
    recorded neither number.
    """

    count: int
    num_bytes: int
    classes: tuple[str, ...]
    source: str
    settings: dict[str, Any]
    skipped: tuple[tuple[str, str], ...]
    page_size: int
    index_sha256: str
    page_sha256: tuple[str, ...]
    addertrain: str
    remarks: tuple[str, ...] = ()
    kept_jpegs: int = 0
    marked_jpegs: int | None = None
    format: int = _FORMAT

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, beton: Path) -> Self:
        """The side file of a .beton.

        Raises:
            DataError: there is none, or it is not addertrain's.
        """
        path = side_path(beton)
        if not beton.exists():
            raise DataError(
                f"{beton}: expected a .beton file, got none; write it with addertrain data write IMAGES "
                f"{beton}, or choose data.loader: torchvision"
            )
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if plain["format"] != _FORMAT:
                raise ValueError(f"format {plain['format']}")
            plain["skipped"] = tuple((str(name), str(reason)) for name, reason in plain["skipped"])
            plain["remarks"] = tuple(plain.get("remarks", ()))  # earlier versions wrote none
            for key in ("classes", "page_sha256"):
                plain[key] = tuple(plain[key])
            return cls(**plain)
        except FileNotFoundError:
            raise DataError(
                f"{path}: expected the side file of {beton.name}, got none; if addertrain wrote "
                f"{beton.name}, writing was interrupted: start it again; if another program did, run "
                f"addertrain data verify --adopt {beton}"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: expected the side file of {beton.name}, got something else ({error}); write "
                f"{beton.name} again, or remove the side file and run addertrain data verify --adopt {beton}"
            ) from None

    def check(self, index: BetonIndex) -> None:
        """Raises a DataError if the .beton is not the one that was written."""
        for what, expected, got in (
            ("bytes", self.num_bytes, index.num_bytes),
            ("samples", self.count, len(index)),
            ("bytes a page", self.page_size, index.page_size),
        ):
            if expected != got:
                raise DataError(
                    f"{index.path}: expected {expected} {what}, as its side file says, got {got}; it is "
                    "damaged or was replaced, so write it again"
                )
        check_labels(index.labels, len(self.classes), where=index.path)
        if self.index_sha256 != index.sha256:
            raise DataError(
                f"{index.path}: expected the checksum of its index, as its side file says, got another; the "
                "file is damaged, so write it again"
            )


def side_path(beton: Path) -> Path:
    """The path of the side file of a .beton.

    Raises:
        DataError: `beton` is a folder.
    """
    if beton.is_dir():
        raise DataError(f"{beton}: expected a .beton file, got a folder; name a file")
    return beton.with_name(beton.name + ".json")


def describe(side: SideFile, index: BetonIndex) -> list[str]:
    """A description in lines: number of images, classes, encodings, sizes, origin, and images that were left
    out.
    """
    counts = np.bincount(index.labels, minlength=len(side.classes))
    share = float(np.mean(index.modes == JPEG))
    form = {0.0: "raw", 1.0: "jpg"}.get(share, f"{100 * share:.1f} % jpg, the rest raw")
    unused = {"jpg": ("proportion",), "raw": ("proportion", "quality", "restart_interval", "jpegs")}.get(
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
        *_markers(side, int(np.count_nonzero(index.modes == JPEG))),
        *(f"remark     {line}" for line in side.remarks),
        f"left out   {len(side.skipped)} that could not be stored",
    ]
    return lines + [f"           {name}: {reason}" for name, reason in side.skipped]


def _markers(side: SideFile, num_jpegs: int) -> list[str]:
    """How many JPEGs a crop can be cut out of, and how many were not compressed again."""
    interval = side.settings.get("restart_interval")
    marked = side.marked_jpegs
    if marked is None and interval is not None:
        marked = num_jpegs if interval else 0
    if not num_jpegs or marked is None:
        return []
    kept = f"; {side.kept_jpegs} kept as they came, not compressed again" if side.kept_jpegs else ""
    return [f"markers    in {marked} of {num_jpegs} JPEGs{kept}"]
