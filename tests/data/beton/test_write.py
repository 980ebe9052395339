"""Writing a .beton: the same bytes from any number of processes and after any interruption."""

import errno
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from addertrain.data import DataError
from addertrain.data.beton import pages, write
from addertrain.data.beton.encode import BetonSettings, shrunk, store
from addertrain.data.beton.format import JPEG, RAW, read_index
from addertrain.data.beton.side_file import SideFile, side_path
from addertrain.data.beton.verify import verify_images
from addertrain.data.beton.write import write_beton
from addertrain.data.decoding import jpeg
from addertrain.data.decoding.modes import Rendering
from addertrain.data.decoding.picture import decode_picture
from addertrain.data.sources.folder import PictureFiles, folder_of_classes
from tests.data.photographs import SMALL_PAGES, waves, write_folder

SMALL = SMALL_PAGES


@pytest.fixture(autouse=True)
def _in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encodes without other processes, where a test is not about them."""
    if not request.node.get_closest_marker("distributed"):
        monkeypatch.setattr(write, "_stored", _stored_here)


def _stored_here(source: Any, samples: list[int], settings: BetonSettings, num_workers: int) -> Any:
    from addertrain.data.beton.encode import store_part

    for sample in samples:
        yield sample, store_part(source.some([sample]), [sample], settings)[0]


@pytest.fixture
def files(folder: Path) -> PictureFiles:
    return folder_of_classes(folder)


def test_the_side_file_says_what_was_written(files: PictureFiles, beton: Path) -> None:
    side, index = SideFile.read(beton), read_index(beton)
    assert (side.count, len(index)) == (45, 45)
    assert side.classes == files.classes
    assert side.num_bytes == beton.stat().st_size
    assert index.labels.tolist() == files.labels.tolist()
    assert side.settings["format"] == "jpg"
    assert not list(beton.parent.glob("*.part*"))
    assert verify_images(beton) == []


@pytest.mark.distributed
@pytest.mark.parametrize("num_workers", [2])
def test_any_number_of_processes_writes_the_same_bytes(
    files: PictureFiles, beton: Path, tmp_path: Path, num_workers: int
) -> None:
    seen: list[tuple[int, int, int]] = []
    path = tmp_path / "other.beton"
    write_beton(files, path, SMALL, num_workers=num_workers, progress=lambda *now: seen.append(now))
    assert path.read_bytes() == beton.read_bytes()
    assert seen == [(done, 45, 0) for done in range(46)]


def test_stored_pictures_are_brought_to_size_and_keep_their_shape() -> None:
    assert shrunk(waves(0, 300, 600), 400).shape == (200, 400, 3)
    assert shrunk(waves(0, 3, 4000), 400).shape == (1, 400, 3)
    same = waves(0, 300, 400)
    assert shrunk(same, 400) is same
    assert shrunk(waves(0, 300, 600), None).shape == (300, 600, 3)


@pytest.mark.parametrize(
    ("interval", "width", "stands"), [(0, 64, 0), (1, 64, 1), (2, 64, 2), (2, 80, 1), (4, 90, 3)]
)
def test_restart_markers_stand_at_the_same_columns_in_every_row(
    interval: int, width: int, stands: int
) -> None:
    """The largest interval up to the setting that divides the 4, 5 or 6 macroblocks of a row."""
    contents = [
        store(waves(0, 50, width), BetonSettings(restart_interval=number), sample=0).content
        for number in (interval, 0)
    ]
    head = jpeg.read_head(contents[0])
    assert head is not None
    assert head.restart_interval == stands
    one, other = (decode_picture(content, name="x").pixels for content in contents)
    assert np.array_equal(one, other)


def test_raw_images_are_exact_and_jpegs_near() -> None:
    picture = waves(0, 60, 80)
    raw = store(picture, BetonSettings(format="raw"), sample=0)
    assert (raw.mode, raw.height, raw.width) == (RAW, 60, 80)
    assert raw.content == picture.tobytes()
    jpeg = store(picture, BetonSettings(), sample=0)
    assert jpeg.mode == JPEG
    assert len(jpeg.content) < len(raw.content) / 3


def test_proportion_stores_a_share_as_jpegs_by_sample_alone() -> None:
    picture, settings = waves(0, 8, 8), BetonSettings(format="proportion", proportion=0.25)
    modes = [store(picture, settings, sample=k).mode for k in range(400)]
    assert np.mean(np.array(modes) == JPEG) == pytest.approx(0.25, abs=0.06)
    assert modes == [store(picture, settings, sample=k).mode for k in range(400)]


class _Stop(Exception):
    pass


@pytest.mark.parametrize("stop_at", [1, 20, 44])
def test_an_interrupted_write_goes_on_to_the_same_bytes(
    files: PictureFiles, beton: Path, tmp_path: Path, stop_at: int
) -> None:
    path, began_at = tmp_path / "file.beton", []

    def stop(done: int, total: int, bad: int) -> None:
        if done == stop_at:
            raise _Stop

    with pytest.raises(_Stop):
        write_beton(files, path, SMALL, progress=stop)
    assert not path.exists()
    assert not side_path(path).exists()
    with (tmp_path / "file.beton.part.journal").open("a") as journal:
        journal.write('["half a li')  # as a crash leaves it
    write_beton(files, path, SMALL, progress=lambda done, *_: began_at.append(done))
    assert path.read_bytes() == beton.read_bytes()
    assert (began_at[0] > 0) == (stop_at > 10)  # a page was whole by then
    assert verify_images(path) == []


def test_a_page_that_the_disk_has_lost_is_written_again(
    files: PictureFiles, beton: Path, tmp_path: Path
) -> None:
    path, part = tmp_path / "file.beton", tmp_path / "file.beton.part"

    def stop(done: int, total: int, bad: int) -> None:
        if done == 44:
            raise _Stop

    with pytest.raises(_Stop):
        write_beton(files, path, SMALL, progress=stop)
    os.truncate(part, part.stat().st_size - 1000)
    write_beton(files, path, SMALL)
    assert path.read_bytes() == beton.read_bytes()


def test_other_settings_do_not_go_on_with_what_is_there(files: PictureFiles, tmp_path: Path) -> None:
    def stop(done: int, total: int, bad: int) -> None:
        if done == 40:
            raise _Stop

    with pytest.raises(_Stop):
        write_beton(files, tmp_path / "a.beton", SMALL, progress=stop)
    with pytest.raises(
        DataError,
        match=r"the settings and images that it was started with, got others \(different: settings\)",
    ):
        write_beton(files, tmp_path / "a.beton", BetonSettings(page_size=1 << 17, quality=50))
    with pytest.raises(DataError, match=r"\(different: count, pictures\)"):
        write_beton(files.some(range(30)), tmp_path / "a.beton", SMALL)


def test_a_file_that_is_there_is_never_overwritten(files: PictureFiles, beton: Path) -> None:
    with pytest.raises(DataError, match="expected a new file, got one that exists"):
        write_beton(files, beton)


@pytest.fixture
def with_bad(tmp_path: Path) -> PictureFiles:
    """Twelve pictures, two of which are none."""
    root = write_folder(tmp_path / "bad", num_classes=2, per_class=6)
    (root / "class_0" / "003.jpg").write_bytes(b"no picture")
    whole = (root / "class_1" / "001.jpg").read_bytes()
    (root / "class_1" / "001.jpg").write_bytes(whole[: len(whole) // 2])
    return folder_of_classes(root)


BAD = (
    r"got 2 of 12 that cannot: class_0/003.jpg \(expected an image, got 10 bytes .*\), "
    r"class_1/001.jpg \(expected an intact JPEG, .*\); .*--skip-bad"
)


def test_bad_pictures_are_counted_and_named_with_reasons(with_bad: PictureFiles, tmp_path: Path) -> None:
    path = tmp_path / "file.beton"
    with pytest.raises(DataError, match=BAD):
        write_beton(with_bad, path, SMALL)
    assert not path.exists()
    counts: list[int] = []
    side = write_beton(
        with_bad, path, SMALL, skip_bad=True, progress=lambda done, total, bad: counts.append(done)
    )
    assert counts[0] == 10  # what could be read was kept
    assert side.count == 10
    assert [name for name, _ in side.skipped] == ["class_0/003.jpg", "class_1/001.jpg"]
    assert "expected an image" in side.skipped[0][1]
    assert read_index(path).labels.tolist() == [0] * 5 + [1] * 5
    assert verify_images(path) == []


def test_a_class_that_loses_all_its_pictures_is_told(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "bad", num_classes=2, per_class=1)
    (root / "class_1" / "000.jpg").write_bytes(b"<html>")
    side = write_beton(folder_of_classes(root), tmp_path / "x.beton", SMALL, skip_bad=True)
    assert side.remarks == ("classes whose images were all left out: 1 (class_1)",)


def test_pictures_that_were_mended_are_taken_up(with_bad: PictureFiles, tmp_path: Path) -> None:
    path = tmp_path / "file.beton"
    with pytest.raises(DataError):
        write_beton(with_bad, path, SMALL)
    for name in ("class_0/003.jpg", "class_1/001.jpg"):
        Image.fromarray(waves(5, 40, 50)).save(with_bad.root / name)
    assert write_beton(with_bad, path, SMALL).count == 12
    index = read_index(path)
    assert index.labels.tolist() == [0] * 6 + [1] * 6
    assert index.heights[3] == 40
    assert verify_images(path) == []


def test_a_full_disk_is_named_and_what_is_written_stays(
    files: PictureFiles, beton: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pwrite = tmp_path / "file.beton", os.pwrite

    def full(file: int, content: bytes, start: int) -> int:
        if start > 2 << 17:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(file, content[:100_000], start)  # and never all at once

    with monkeypatch.context() as patched:
        patched.setattr(pages.os, "pwrite", full)
        with pytest.raises(DataError, match="No space left on device; free some space"):
            write_beton(files, path, SMALL)
    write_beton(files, path, SMALL)
    assert path.read_bytes() == beton.read_bytes()


def test_two_writers_of_one_file_are_refused(files: PictureFiles, tmp_path: Path) -> None:
    path = tmp_path / "file.beton"

    def second(done: int, total: int, bad: int) -> None:
        with pytest.raises(DataError, match="another process is writing this file"):
            write_beton(files, path, SMALL)
        raise _Stop

    with pytest.raises(_Stop):
        write_beton(files, path, SMALL, progress=second)


class KillsItsReader(PictureFiles):
    """Ends the process that reads picture 40."""

    def picture(self, sample: int) -> Any:
        if self.paths[sample].endswith("004.jpg") and "class_4" in self.paths[sample]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().picture(sample)

    def some(self, samples: Any) -> "KillsItsReader":
        return KillsItsReader(**vars(super().some(samples)))


@pytest.mark.distributed
def test_a_process_that_is_killed_is_named_and_not_waited_for(
    files: PictureFiles, beton: Path, tmp_path: Path
) -> None:
    path = tmp_path / "file.beton"
    with pytest.raises(DataError, match=r"a worker process died \(it was killed or ran out of memory\)"):
        write_beton(KillsItsReader(**vars(files)), path, SMALL, num_workers=1)
    assert (tmp_path / "file.beton.part.journal").exists()
    write_beton(files, path, SMALL, num_workers=1)
    assert path.read_bytes() == beton.read_bytes()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quality": 0}, "quality: expected 1 to 100, got 0"),
        ({"quality": 101}, "quality: expected 1 to 100, got 101"),
        ({"max_size": 1}, "max_size: expected 8 to 65535 pixels"),
        ({"page_size": 5000}, "page_size: expected a power of two"),
        ({"restart_interval": -1}, "restart_interval: expected 0 to 65535 macroblocks, got -1"),
        ({"proportion": 1.5}, "proportion: expected 0 to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        BetonSettings(**settings)


def test_a_folder_that_is_not_there_is_named(files: PictureFiles, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected an existing folder .*nowhere, got none"):
        write_beton(files, tmp_path / "nowhere" / "x.beton", SMALL)


def test_other_faults_of_a_disk_do_not_ask_for_room(
    files: PictureFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: int, content: bytes, start: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(pages.os, "pwrite", fail)
    with pytest.raises(DataError, match=r"got: Input/output error; fix this and start"):
        write_beton(files, tmp_path / "x.beton", SMALL)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_and_written_to(
    files: PictureFiles, beton: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("addertrain.data.file_locks.fcntl.flock", refuse)
    said: list[str] = []
    write_beton(files, tmp_path / "x.beton", SMALL, say=said.append)
    assert (tmp_path / "x.beton").read_bytes() == beton.read_bytes()
    assert "x.beton.part cannot be locked on this file system" in said[0]


@pytest.mark.parametrize(("quality", "form", "count"), [(97, "jpg", 0), (98, "jpg", 1), (100, "raw", 0)])
def test_a_quality_that_ffcvs_decoder_loses_again_is_told(
    files: PictureFiles, tmp_path: Path, quality: int, form: Any, count: int
) -> None:
    said: list[str] = []
    settings = BetonSettings(page_size=1 << 20, quality=quality, format=form)
    side = write_beton(files.some(range(2)), tmp_path / "x.beton", settings, say=said.append)
    assert len(said) == len(side.remarks) == count
    assert all("FFCV decodes JPEGs of 98 to 100 hardly better" in line for line in said)


@pytest.mark.long
@pytest.mark.distributed
def test_a_long_folder_for_temporary_files_is_no_obstacle(
    files: PictureFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("t" * 90)
    long.mkdir()
    monkeypatch.setattr(write.tempfile, "gettempdir", lambda: str(long))
    assert write_beton(files.some(range(2)), tmp_path / "x.beton", SMALL).count == 2


@pytest.mark.parametrize(("letters", "method"), [(5, "forkserver"), (65, "forkserver"), (90, "spawn")])
def test_processes_start_without_a_socket_where_its_path_would_be_too_long(
    letters: int, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """107 bytes are what a socket's path may have; multiprocessing adds 31 or 32 to the folder's."""
    monkeypatch.setattr(write.tempfile, "gettempdir", lambda: "/" + "t" * letters)
    assert write._start_method() == method


def test_remarks_of_the_source_are_said_at_once_and_kept(files: PictureFiles, tmp_path: Path) -> None:
    said: list[str] = []
    source = replace(files.some(range(3)), remarks=("skipped: 2 .txt",))
    side = write_beton(source, tmp_path / "x.beton", SMALL, say=said.append)
    assert said == ["skipped: 2 .txt"]
    assert side.remarks[0] == "skipped: 2 .txt"
    assert SideFile.read(tmp_path / "x.beton") == side


def test_another_background_does_not_go_on_with_what_is_there(files: PictureFiles, tmp_path: Path) -> None:
    with pytest.raises(_Stop):
        write_beton(files, tmp_path / "x.beton", SMALL, progress=stop_at_40)
    black = replace(files, rendering=Rendering(background=(0, 0, 0)))
    with pytest.raises(
        DataError,
        match=r"the settings and images that it was started with, got others \(different: rendering\)",
    ):
        write_beton(black, tmp_path / "x.beton", SMALL)


def stop_at_40(done: int, total: int, bad: int) -> None:
    if done == 40:
        raise _Stop
