"""Pictures into a .beton, by several processes; an interruption costs a page, and a bad picture is named.

The images follow the order of the source whatever the number of processes: the same pictures and settings
give the same bytes.
"""

import hashlib
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import addertrain
from addertrain.data.beton_encode import BetonSettings, Stored, begin_worker, store_part
from addertrain.data.beton_format import read_index
from addertrain.data.beton_journal import Journal
from addertrain.data.beton_pages import PageFile
from addertrain.data.errors import DataError
from addertrain.data.side_file import SideFile, side_path
from addertrain.data.source import PictureSource
from addertrain.durable import flush_directory, write_text

_PART = 32  # pictures a process is given at a time
_PARTS_AHEAD = 3  # for each process
_NAMED = 5  # bad pictures that the error names

Progress = Callable[[int, int, int], None]
"""Is told of pictures done, pictures in all, and how many of them cannot be read."""


def write_beton(
    source: PictureSource,
    path: Path,
    settings: BetonSettings | None = None,
    *,
    num_workers: int = 1,
    skip_bad: bool = False,
    progress: Progress = lambda done, total, bad: None,
) -> SideFile:
    """Writes a .beton and its side file, or goes on with them; returns what the side file says.

    Until all is on the disk the file is called PATH.part, beside PATH.part.journal.

    Args:
        skip_bad: leave out pictures that cannot be read, and list them in the side file.

    Raises:
        DataError: the file is there already, a picture that cannot be read, a full disk, a process that died.
            What has been written stays, and the same call goes on from there.
    """
    settings = settings or BetonSettings()
    if path.exists():
        raise DataError(f"{path}: expected no file there yet, got one; remove it, or choose another name")
    if not len(source):
        raise DataError(f"{source.description}: expected pictures, got none")
    part = path.with_name(path.name + ".part")
    try:
        with closing(PageFile(part, page_size=settings.page_size, capacity=len(source))) as pages:
            about = {
                "settings": asdict(settings),
                "source": source.description,
                "count": len(source),
                "pictures": _names_sha256(source),
            }
            with closing(Journal.open(Path(f"{part}.journal"), about, pages.has_page)) as journal:
                pages.num_pages = len(journal.pages)
                bad = _write_pages(source, settings, pages, journal, num_workers, progress)
                if bad and (not skip_bad or len(bad) == len(source)):
                    raise DataError(_complaint(bad, source))
                rows = sorted(row for page in journal.pages for row in page.rows)
                pages.finish(rows)
        return _publish(source, settings, part, path, journal, bad)
    except OSError as error:
        raise DataError(
            f"{part}: expected to write, got: {error.strerror}; what is written stays: make room and start "
            "the same command again"
        ) from None


def _write_pages(
    source: PictureSource,
    settings: BetonSettings,
    pages: PageFile,
    journal: Journal,
    num_workers: int,
    progress: Progress,
) -> dict[int, str]:
    """Writes what is still missing; returns why pictures could not be read, by their numbers."""
    written = {row.sample for page in journal.pages for row in page.rows}
    missing = [sample for sample in range(len(source)) if sample not in written]
    bad: dict[int, str] = {}
    done = len(written)
    progress(done, len(source), 0)
    for sample, stored in _stored(source, missing, settings, num_workers):
        done += 1
        if isinstance(stored, str):
            bad[sample] = stored
        else:
            pages.add(sample, int(source.labels[sample]), stored, journal.add)
        progress(done, len(source), len(bad))
    pages.flush(journal.add)
    return bad


def _stored(
    source: PictureSource, samples: list[int], settings: BetonSettings, num_workers: int
) -> Iterator[tuple[int, Stored | str]]:
    """Every picture as it is stored, in order, from processes that run ahead."""
    if not samples:
        return
    context = multiprocessing.get_context("forkserver")  # this process may have threads: it must not fork
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
                "write: expected all processes to live, one died (out of memory, or killed); what is written "
                "stays: start the same command again, perhaps with fewer --workers"
            ) from None
        finally:
            processes.shutdown(wait=False, cancel_futures=True)


def _results(samples: list[int], stored: "Future[list[Stored | str]]") -> Iterator[tuple[int, Stored | str]]:
    return zip(samples, stored.result(), strict=True)


def _publish(
    source: PictureSource,
    settings: BetonSettings,
    part: Path,
    path: Path,
    journal: Journal,
    bad: dict[int, str],
) -> SideFile:
    """Reads the index back, writes the side file, and gives the file its name; the order matters."""
    index = read_index(part)
    side = SideFile(
        count=len(index),
        num_bytes=index.num_bytes,
        classes=tuple(source.classes),
        source=source.description,
        settings={**asdict(settings), "written": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())},
        skipped=tuple((source.name(sample), reason) for sample, reason in bad.items()),
        page_size=index.page_size,
        index_sha256=index.sha256,
        page_sha256=tuple(page.sha256 for page in journal.pages),
        addertrain=addertrain.__version__,
    )
    write_text(side_path(path), side.to_json())
    part.rename(path)
    flush_directory(path.parent)
    journal.path.unlink()
    return side


def _complaint(bad: dict[int, str], source: PictureSource) -> str:
    names = [source.name(sample) for sample in list(bad)[:_NAMED]]
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    return (
        f"{source.description}: expected pictures that can be read, {len(bad)} of {len(source)} cannot: "
        f"{', '.join(names)}{more}; replace them and start again, or leave them out with --skip-bad"
    )


def _names_sha256(source: PictureSource) -> str:
    digest = hashlib.sha256(source.labels.tobytes())
    for sample in range(len(source)):
        digest.update(source.name(sample).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
