"""Packs images into a .beton with several processes; an interruption costs a page, and a bad image is named.

The images have the order of the source for any number of processes, so the same images and settings give the
same bytes.
"""

import errno
import hashlib
import json
import multiprocessing
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np

import addertrain
from addertrain.data.beton.encode import (
    BetonSettings,
    Stored,
    begin_worker,
    shrunk_size,
    store_part,
    stored_mode,
    too_large,
)
from addertrain.data.beton.format import JPEG, RAW, BetonIndex, read_index
from addertrain.data.beton.journal import Journal, Row
from addertrain.data.beton.kept import can_mark
from addertrain.data.beton.pages import PageFile
from addertrain.data.beton.repage import repage
from addertrain.data.beton.side_file import SideFile, side_path
from addertrain.data.decoding.modes import Change
from addertrain.data.sources.source import PictureSource
from addertrain.durable import flush_directory, write_text
from addertrain.errors import DataError

_PART = 32  # pictures a process is given at a time
_PARTS_AHEAD = 3  # for each process
_NAMED = 5  # bad images that the error names

Progress = Callable[[int, int, int], None]
"""Receives the number of images done, of all images, and of images that cannot be read."""


def write_beton(
    source: PictureSource,
    path: Path,
    settings: BetonSettings | None = None,
    *,
    num_workers: int = 1,
    skip_bad: bool = False,
    progress: Progress = lambda done, total, bad: None,
    say: Callable[[str], None] = lambda line: None,
) -> SideFile:
    """Writes a .beton and its side file, or resumes writing them; returns the contents of the side file.

    Until everything is on disk the file is called PATH.part, with a journal PATH.part.journal.

    Args:
        skip_bad: leave out images that cannot be read, and list them in the side file.
        say: is given the lines that may make a user stop early; the side file's remarks contain them all.

    Raises:
        DataError: the file exists already, an image cannot be read, the disk is full, or a process died. What
        has been written stays, and the same call resumes from there, also with another page size.
    """
    settings = settings or BetonSettings()
    if not path.parent.is_dir():
        raise DataError(f"{path}: expected an existing folder {path.parent}, got none; create it")
    if path.exists():
        raise DataError(
            f"{path}: expected a new file, got one that exists; remove it, or choose another name"
        )
    if not len(source):
        raise DataError(f"{source.description}: expected images, got none; check the path")
    if settings.jpegs == "kept" and not can_mark():
        raise DataError(
            "jpegs: expected the library _C_pictures, which writes restart markers into kept JPEGs, got "
            "none; install libjpeg-turbo's headers and addertrain again, or set 'unmarked'"
        )
    part = path.with_name(path.name + ".part")
    for line in (*source.remarks, *settings.remarks):
        say(line)
    try:
        return _write(source, path, part, settings, num_workers, skip_bad, progress, say)
    except OSError as error:
        cure = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "fix this"
        raise DataError(
            f"{part}: expected to write there, got: {error.strerror or error}; {cure} and start the same "
            "command again, which resumes"
        ) from None


def _write(
    source: PictureSource,
    path: Path,
    part: Path,
    settings: BetonSettings,
    num_workers: int,
    skip_bad: bool,
    progress: Progress,
    say: Callable[[str], None],
) -> SideFile:
    journal_path, capacity = Path(f"{part}.journal"), len(source)
    about = {
        "settings": asdict(settings),
        "rendering": json.loads(json.dumps(asdict(source.rendering))),
        "source": source.description,
        "count": capacity,
        "pictures": _names_sha256(source),
    }
    repage(part, journal_path, about, capacity=capacity)
    with closing(PageFile(part, page_size=settings.page_size, capacity=capacity)) as pages:
        if not pages.is_locked:
            say(f"{part} cannot be locked on this file system; make sure that no second process writes it")
        with closing(Journal.open(journal_path, about, pages.has_page)) as journal:
            pages.num_pages = len(journal.pages)
            bad = _too_large(source, settings, journal)
            if not bad or skip_bad:
                bad = _write_pages(source, settings, pages, journal, bad, num_workers, progress)
            if bad and (not skip_bad or len(bad) == len(source)):
                raise DataError(_complaint(bad, source))
            rows = sorted(row for page in journal.pages for row in page.rows)
            pages.finish(rows)
    remarks = (*source.remarks, *settings.remarks, *_changes(rows, source), *_emptied(rows, source))
    return _publish(source, settings, part, path, journal, bad, remarks)


def _too_large(source: PictureSource, settings: BetonSettings, journal: Journal) -> dict[int, str]:
    """Raw images that are too large for a page, found in their headers before hours of writing."""
    largest = settings.max_size
    if settings.format == "jpg" or (largest is not None and 3 * largest**2 <= settings.page_size):
        return {}
    written = {row.sample for page in journal.pages for row in page.rows}
    bad = {}
    for sample in range(len(source)):
        if sample in written or (sides := source.size(sample)) is None:
            continue
        height, width = shrunk_size(sides[1], sides[0], largest)
        num_bytes = 3 * height * width
        if num_bytes > settings.page_size and stored_mode(settings, sample) == RAW:
            bad[sample] = too_large(num_bytes, settings.page_size)
    return bad


def _write_pages(
    source: PictureSource,
    settings: BetonSettings,
    pages: PageFile,
    journal: Journal,
    bad: dict[int, str],
    num_workers: int,
    progress: Progress,
) -> dict[int, str]:
    """Writes the images that are missing and not known to be bad; returns the reasons of bad ones by their
    numbers.
    """
    written = {row.sample for page in journal.pages for row in page.rows}
    missing = [sample for sample in range(len(source)) if sample not in written and sample not in bad]
    bad = dict(bad)
    done = len(written) + len(bad)
    progress(done, len(source), len(bad))
    for sample, stored in _stored(source, missing, settings, num_workers):
        done += 1
        if isinstance(stored, str):
            bad[sample] = stored
        else:
            pages.add(sample, int(source.labels[sample]), stored, journal.add)
        progress(done, len(source), len(bad))
    pages.flush(journal.add)
    return dict(sorted(bad.items()))


def _stored(
    source: PictureSource, samples: list[int], settings: BetonSettings, num_workers: int
) -> Iterator[tuple[int, Stored | str]]:
    """Every encoded image in order, from processes that work ahead."""
    if not samples:
        return
    context = multiprocessing.get_context(_start_method())
    parts = [samples[start : start + _PART] for start in range(0, len(samples), _PART)]
    with ProcessPoolExecutor(num_workers, mp_context=context, initializer=begin_worker) as processes:
        started: deque[tuple[list[int], Future[list[Stored | str]]]] = deque()
        try:
            for part in parts:
                started.append((part, processes.submit(store_part, source.some(part), part, settings)))
                if len(started) > _PARTS_AHEAD * num_workers:
                    yield from _results(*started.popleft())
            while started:
                yield from _results(*started.popleft())
        except BrokenProcessPool:
            raise DataError(
                "data write: a worker process died (it was killed or ran out of memory); start the same "
                "command again, which resumes, perhaps with fewer --workers"
            ) from None
        finally:
            processes.shutdown(wait=False, cancel_futures=True)


def _start_method() -> Literal["forkserver", "spawn"]:
    """How processes are started; this one may have threads, so it must not fork.

    The fork server uses a socket in TMPDIR, whose path may have at most 107 bytes.
    """
    socket_name = os.path.join(tempfile.gettempdir(), "pymp-12345678", "listener-12345678")
    return "forkserver" if len(os.fsencode(socket_name)) < 107 else "spawn"


def _results(samples: list[int], stored: "Future[list[Stored | str]]") -> Iterator[tuple[int, Stored | str]]:
    return zip(samples, stored.result(), strict=True)


def _publish(
    source: PictureSource,
    settings: BetonSettings,
    part: Path,
    path: Path,
    journal: Journal,
    bad: dict[int, str],
    remarks: tuple[str, ...],
) -> SideFile:
    """Reads the index back, writes the side file, and gives the file its name, in this order."""
    index = read_index(part)
    kept = sum(bool(row.change & Change.KEPT) for page in journal.pages for row in page.rows)
    side = SideFile(
        count=len(index),
        num_bytes=index.num_bytes,
        classes=tuple(source.classes),
        source=source.description,
        settings={
            **asdict(settings),
            **source.rendering.record(),
            "written": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        },
        skipped=tuple((source.name(sample), reason) for sample, reason in bad.items()),
        page_size=index.page_size,
        index_sha256=index.sha256,
        page_sha256=tuple(page.sha256 for page in journal.pages),
        addertrain=addertrain.__version__,
        remarks=remarks,
        kept_jpegs=kept,
        marked_jpegs=_marked(index, settings, kept),
    )
    write_text(side_path(path), side.to_json())
    part.rename(path)
    flush_directory(path.parent)
    journal.path.unlink()
    return side


def _marked(index: BetonIndex, settings: BetonSettings, kept: int) -> int:
    """How many JPEGs have the settings' markers; those that are kept byte for byte count as having none."""
    if not settings.restart_interval:
        return 0
    num_jpegs = int(np.count_nonzero(index.modes == JPEG))
    return num_jpegs - kept if settings.jpegs == "unmarked" else num_jpegs


def _changes(rows: list[Row], source: PictureSource) -> list[str]:
    """How images were changed besides decoding them, and how many."""
    counts = {change: sum(bool(row.change & change) for row in rows) for change in Change}
    lines = []
    if turned := counts[Change.TURNED]:
        lines.append(f"turned upright by their EXIF orientation: {turned}")
    if laid := counts[Change.LAID]:
        lines.append(f"blended with the background {source.rendering.record()['background']}: {laid}")
    if scaled := counts[Change.SCALED]:
        lines.append(f"grey of more than 8 bits, scaled to 8: {scaled}")
        if scaled == counts[Change.DIM]:
            lines[-1] += " (all in the darkest eighth: if white is another value, write again with --white)"
    return lines


def _emptied(rows: list[Row], source: PictureSource) -> list[str]:
    """Classes whose images were all left out."""
    left = sorted(set(np.unique(source.labels).tolist()) - {row.label for row in rows})
    names = ", ".join(source.classes[label] for label in left[:3])
    return [f"classes whose images were all left out: {len(left)} ({names})"] if left else []


def _complaint(bad: dict[int, str], source: PictureSource) -> str:
    reasons = [f"{source.name(sample)} ({reason})" for sample, reason in list(bad.items())[:_NAMED]]
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    return (
        f"{source.description}: expected images that can be stored, got {len(bad)} of {len(source)} that "
        f"cannot: {', '.join(reasons)}{more}; replace them and start again, or leave them out with --skip-bad"
    )


def _names_sha256(source: PictureSource) -> str:
    digest = hashlib.sha256(source.labels.tobytes())
    for sample in range(len(source)):
        digest.update(source.name(sample).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
