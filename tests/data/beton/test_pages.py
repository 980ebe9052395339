"""Images and pages: what no page holds is told early, by name; a larger page goes on with what is there."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from addertrain.data import DataError
from addertrain.data.beton import write
from addertrain.data.beton.encode import BetonSettings, store_part
from addertrain.data.beton.format import read_index
from addertrain.data.beton.verify import verify_images
from addertrain.data.beton.write import write_beton
from addertrain.data.sources.folder import PictureFiles, folder_of_classes
from tests.data.photographs import waves

RAW = {"format": "raw", "max_size": None}
SMALL_PAGE, LARGE_PAGE = 1 << 14, 1 << 16


@pytest.fixture(autouse=True)
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The samples that are decoded, here and not in other processes."""
    samples: list[int] = []

    def stored(source: Any, missing: list[int], settings: BetonSettings, num_workers: int) -> Any:
        for sample in missing:
            samples.append(sample)
            yield sample, store_part(source.some([sample]), [sample], settings)[0]

    monkeypatch.setattr(write, "_stored", stored)
    return samples


@pytest.fixture
def files(tmp_path: Path) -> PictureFiles:
    """Ten pictures of 5,400 bytes, and as number 6 one of 30,000."""
    (tmp_path / "data" / "a").mkdir(parents=True)
    for k in range(11):
        sides = (100, 100) if k == 6 else (30, 60)
        Image.fromarray(waves(k, *sides)).save(tmp_path / "data" / "a" / f"{k:02d}.png")
    return folder_of_classes(tmp_path / "data")


@pytest.mark.parametrize("settings", [RAW, {"format": "proportion", "proportion": 0.0, "max_size": 90}])
def test_a_raw_picture_that_no_page_holds_is_told_before_the_first_page(
    files: PictureFiles, tmp_path: Path, encoded: list[int], settings: dict[str, Any]
) -> None:
    size = 30000 if settings is RAW else 24300
    words = rf"1 of 11 that cannot: a/06\.png \(expected at most 16384 bytes .*got {size} \(--page-mib 1 "
    with pytest.raises(DataError, match=words):
        write_beton(files, tmp_path / "x.beton", BetonSettings(page_size=SMALL_PAGE, **settings))
    assert encoded == []


def test_it_is_one_bad_picture_among_others(files: PictureFiles, tmp_path: Path) -> None:
    settings, path = BetonSettings(page_size=SMALL_PAGE, **RAW), tmp_path / "x.beton"
    side = write_beton(files, path, settings, skip_bad=True)
    assert side.count == 10
    assert [name for name, _ in side.skipped] == ["a/06.png"]
    assert verify_images(path) == []


def test_a_jpeg_that_no_page_holds_is_told_by_name_and_the_others_stay(
    tmp_path: Path, encoded: list[int]
) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    for k in range(3):
        Image.fromarray(noise if k == 1 else waves(k, 40, 40)).save(tmp_path / "data" / "a" / f"{k}.png")
    files, path = folder_of_classes(tmp_path / "data"), tmp_path / "x.beton"
    with pytest.raises(
        DataError, match=r"1 of 3 that cannot: a/1\.png \(expected at most 4096 bytes an image"
    ):
        write_beton(files, path, BetonSettings(page_size=4096))
    assert encoded == [0, 1, 2]
    assert write_beton(files, path, BetonSettings(page_size=LARGE_PAGE)).count == 3
    assert encoded == [0, 1, 2, 1]
    assert read_index(path).labels.tolist() == [0] * 3
    assert verify_images(path) == []


def test_a_larger_page_goes_on_with_what_is_there_to_the_same_pixels(
    files: PictureFiles, tmp_path: Path, encoded: list[int]
) -> None:
    path = tmp_path / "x.beton"

    def stop(done: int, total: int, bad: int) -> None:
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_beton(files, path, BetonSettings(page_size=SMALL_PAGE, **RAW), skip_bad=True, progress=stop)
    encoded.clear()
    write_beton(files, path, BetonSettings(page_size=LARGE_PAGE, **RAW))
    assert encoded == [6, 7, 8, 9, 10]  # not those of the two whole pages
    write_beton(files, tmp_path / "fresh.beton", BetonSettings(page_size=LARGE_PAGE, **RAW))
    assert _images(path) == _images(tmp_path / "fresh.beton")
    assert verify_images(path) == []
    assert sorted(each.name for each in tmp_path.glob("x.beton*")) == ["x.beton", "x.beton.json"]


def test_a_full_disk_while_pages_are_copied_loses_nothing(
    files: PictureFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    six, path = files.some(range(6)), tmp_path / "x.beton"
    with pytest.raises(DataError):
        write_beton(six, path, BetonSettings(page_size=SMALL_PAGE, **RAW), progress=_stop_at_5)
    before = {name: name.read_bytes() for name in tmp_path.glob("x.beton.part*")}

    def full(file: int, content: bytes, start: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(DataError, match="No space left on device; free some space and start"):
            write_beton(six, path, BetonSettings(page_size=LARGE_PAGE, **RAW))
    assert all(name.read_bytes() == content for name, content in before.items())
    assert write_beton(six, path, BetonSettings(page_size=LARGE_PAGE, **RAW)).count == 6


def _stop_at_5(done: int, total: int, bad: int) -> None:
    if done == 5:
        raise DataError("stopped")


def _images(path: Path) -> list[bytes]:
    index, content = read_index(path), path.read_bytes()
    places = zip(index.offsets.tolist(), index.sizes.tolist(), strict=True)
    return [content[start : start + size] for start, size in places]


def test_long_pictures_are_brought_to_size_before_their_sides_are_judged(tmp_path: Path) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    Image.new("1", (70000, 20)).save(tmp_path / "data" / "a" / "0.png")
    Image.new("1", (20, 20)).save(tmp_path / "data" / "a" / "1.png")
    files = folder_of_classes(tmp_path / "data")
    assert write_beton(files, tmp_path / "x.beton", BetonSettings(page_size=SMALL_PAGE)).count == 2
    with pytest.raises(DataError, match=r"a/0\.png \(expected sides of at most 65500 pixels, got 70000 x 20"):
        write_beton(files, tmp_path / "y.beton", BetonSettings(max_size=None))
