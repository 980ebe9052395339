"""Damaged, foreign and vanishing .beton files: each is named at once, none hangs or passes."""

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from addertrain.data import DataError, PictureLoader
from addertrain.data.beton.encode import Stored
from addertrain.data.beton.format import FIELD, HEADER, IMAGE, JPEG, image_checksum, read_index, row_type
from addertrain.data.beton.reader import BetonReader
from addertrain.data.beton.side_file import side_path
from addertrain.data.beton.verify import adopt, verify_images, verify_structure
from addertrain.data.beton.write import write_beton
from addertrain.data.crops import center_crops
from addertrain.data.sources.folder import PictureFiles
from tests.commands import run_command
from tests.data.photographs import SMALL_PAGES, waves
from tests.data.synthetic_index import write_synthetic

ROW = row_type([2, 1, 1])
ROWS_START = HEADER.itemsize + 3 * FIELD.itemsize


@pytest.fixture(autouse=True, scope="module")
def _compiled(beton: Path) -> None:
    """What is timed below is faults, not the compiler."""
    epoch(beton)


@pytest.fixture
def copy(beton: Path, tmp_path: Path) -> Path:
    """A file of one's own to damage."""
    shutil.copy(side_path(beton), tmp_path)
    return Path(shutil.copy(beton, tmp_path))


def epoch(path: Path) -> list[Any]:
    """Opens the file and reads all of it, twice as a training run would."""
    reader = BetonReader.open(path)
    loader = PictureLoader(
        reader, image_size=lambda epoch: 32, global_batch_size=9, training=True, num_threads=2
    )
    return list(loader)


def cut(keep: Callable[[int], int]) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, keep(path.stat().st_size))


def put(offset: Callable[[Path], int], content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset(path))
            file.write(content)

    return damage


def row(sample: int, field: str, value: int) -> Callable[[Path], None]:
    """Changes one field of a sample's row."""

    def damage(path: Path) -> None:
        rows = np.memmap(path, dtype=ROW, mode="r+", offset=ROWS_START, shape=45)
        if field in IMAGE.names:
            rows["f0"][field][sample] = value
        else:
            rows[field][sample] = value
        rows.flush()

    return damage


def image_at(sample: int) -> Callable[[Path], int]:
    return lambda path: int(read_index(path).offsets[sample])


TABLE_BYTES = 45 * 24
FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (cut(lambda size: 0), "expected a header, got a file of 0 bytes"),
    "cut in the header": (cut(lambda size: 10), "expected a header, got a file of 10 bytes"),
    "cut behind the header": (cut(lambda size: HEADER.itemsize), "cut short or was never finished"),
    "cut in the fields": (cut(lambda size: 1500), "cut short"),
    "cut in the rows": (cut(lambda size: ROWS_START + 100), "cut short"),
    "cut before the data": (cut(lambda size: ROWS_START + 45 * ROW.itemsize), "cut short"),
    "cut in the data": (cut(lambda size: size // 2), "cut short"),
    "cut before the table": (cut(lambda size: size - TABLE_BYTES), "cut short"),
    "cut in the table": (cut(lambda size: size - 500), "cut short"),
    "last byte missing": (cut(lambda size: size - 1), "cut short"),
    "one byte too many": (lambda path: path.open("ab").write(b"x") and None, "cut short or was never"),
    "foreign file": (put(lambda path: 0, b"this is no .beton file at all"), "expected a .beton of version 2"),
    "zeros": (lambda path: path.write_bytes(bytes(100_000)) and None, "expected a .beton of version 2"),
    "label below 0": (row(3, "f1", -5), "expected labels from 0 to 4, got -5 for image 3"),
    "label too large": (row(3, "f1", 1000), "expected labels from 0 to 4, got 1000 for image 3"),
    "label changed": (row(3, "f1", 4), "the checksum of its index, as its side file says, got another"),
    "size changed": (row(3, "height", 17), "the checksum of its index, as its side file says, got another"),
    "place changed": (row(3, "data_ptr", 2**60), "the place of an image in the table as in its row"),
    "mode unknown": (row(3, "mode", 9), r"mode 0 \(jpg\) or 1 \(raw\), got 9 for sample 3"),
    "no pixels": (row(3, "width", 0), "an image of at least one pixel"),
    "raw of the wrong size": (row(3, "mode", 1), "height x width x 3 bytes of a raw image"),
    "field renamed": (
        put(lambda path: HEADER.itemsize + FIELD.itemsize + 1, b"thing"),
        "an integer field 'label', got 'image' of type 2, 'thing' of type 1",
    ),
    "field of another type": (put(lambda path: HEADER.itemsize, b"\x05"), "'image' of type 5"),
    "bit flip in a JPEG": (
        put(lambda path: image_at(20)(path) + 700, b"\x55"),
        r"sample 20: expected the \d+ bytes of an image .* got other bytes \(their checksum differs\)",
    ),
    "JPEG zeroed": (put(image_at(7), bytes(2000)), "sample 7: .*checksum differs"),
    "side file missing": (lambda path: side_path(path).unlink(), "side file of train.beton, got none"),
    "side file garbled": (
        lambda path: side_path(path).write_text("{}") and None, "expected the side file .* got something else"
    ),
    "file missing": (lambda path: path.unlink(), "expected a .beton file, got none; write it with"),
    "replaced by another": (
        lambda path: side_path(path).write_text(
            side_path(path).read_text().replace('"count": 45', '"count": 46')
        ) and None,
        r"expected 46 samples, as its side file says, got 45",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(copy: Path, fault: str) -> None:
    damage, words = FAULTS[fault]
    damage(copy)
    with pytest.raises(DataError, match=words):
        epoch(copy)


def test_an_image_that_does_not_decode_is_named_without_checksums_too(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(image_at(7), bytes(2000))(copy)
    reader = BetonReader.open(copy)
    object.__setattr__(reader._index, "checksums", np.empty(0, dtype=np.uint64))
    with pytest.raises(DataError, match=r"sample 7: .*got bytes that FFCV's decoder does not accept"):
        reader.read(np.array([7]), center_crops(1, share=1.0), np.empty((1, 8, 8, 3), dtype=np.uint8))


@pytest.mark.parametrize("sample", [-1, 45, 2**40])
def test_a_sample_out_of_range_is_refused(beton: Path, sample: int) -> None:
    reader, images = BetonReader.open(beton), np.empty((2, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(DataError, match="expected sample numbers from 0 to 44, got"):
        reader.read(np.array([0, sample]), center_crops(2, share=1.0), images)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.unlink(), "it was removed or replaced while in use"),
        (
            lambda path: shutil.copy(path, f"{path}.2") and os.replace(f"{path}.2", path),
            "removed or replaced",
        ),
        (lambda path: os.truncate(path, 300_000), "it was changed to 300000 bytes while in use"),
    ],
    ids=["removed", "replaced", "cut short"],
)
def test_a_file_that_changes_while_in_use_is_named(
    copy: Path, change: Callable[[Path], None], words: str
) -> None:
    reader = BetonReader.open(copy)
    loader = PictureLoader(reader, image_size=lambda epoch: 32, global_batch_size=5, training=True)
    iterator = iter(loader)
    next(iterator)
    change(copy)
    with pytest.raises(DataError, match=f"{words}|cut short"):
        list(iterator)


def test_verify_names_every_damaged_page_and_image(copy: Path) -> None:
    put(lambda path: image_at(20)(path) + 700, b"\x55")(copy)
    put(image_at(33), bytes(50))(copy)
    verify_structure(copy)  # which does not read images
    complaints = verify_images(copy, num_threads=2)
    assert [line.split(": ")[1] for line in complaints if "page" in line]
    assert [line.split(": ")[1] for line in complaints if "sample" in line] == ["sample 20", "sample 33"]


def test_verify_names_jpegs_without_the_restart_markers_that_the_side_file_tells_of(copy: Path) -> None:
    assert verify_images(copy) == []
    side = json.loads(side_path(copy).read_text())
    assert side["settings"]["restart_interval"] == 2
    side["settings"]["restart_interval"] = 0
    side_path(copy).write_text(json.dumps(side))
    complaint = "expected an interval of 0 macroblocks between restart markers, by the side file, got "
    assert [complaint in line for line in verify_images(copy)] == [True] * 45
    del side["settings"]["restart_interval"]  # as earlier versions wrote it
    side_path(copy).write_text(json.dumps(side))
    assert verify_images(copy) == []


def test_padding_is_covered_too(copy: Path) -> None:
    index = read_index(copy)
    put(lambda path: index.data_end - 1, b"x")(copy)
    (complaint,) = verify_images(copy)
    assert "its checksum differs" in complaint


def test_another_programs_file_is_adopted_after_a_check(copy: Path) -> None:
    side = json.loads(side_path(copy).read_text())
    with pytest.raises(DataError, match="expected no side file for --adopt"):
        adopt(copy)
    side_path(copy).unlink()
    adopted = adopt(copy, num_threads=2)
    assert list(adopted.page_sha256) == side["page_sha256"]
    assert adopted.index_sha256 == side["index_sha256"]
    assert len(epoch(copy)) == 5
    side_path(copy).unlink()
    put(lambda path: image_at(20)(path) + 700, b"\x55")(copy)
    with pytest.raises(DataError, match=r"sample 20: .*checksum differs"):
        adopt(copy)


def test_the_compiled_checksum_is_the_obvious_one() -> None:
    from addertrain.data.beton.decode_kernel import checksum

    generator = np.random.default_rng(0)
    for size in (1, 7, 8, 9, 1000, 4095):
        content = generator.integers(0, 256, size, dtype=np.uint8)
        padded = np.concatenate([content, np.full(8, 255, dtype=np.uint8)])
        assert int(checksum(padded, size)) == image_checksum(content)
        changed = content.copy()
        changed[size // 2] ^= 1
        assert image_checksum(changed) != image_checksum(content)


def test_an_index_of_imagenets_size_needs_little_memory(tmp_path: Path) -> None:
    """1,281,167 rows around holes for images; in a process of its own, which shows its peak of memory."""
    write_synthetic(tmp_path / "large.beton", num_samples=1_281_167)
    result = run_command(sys.executable, "-c", MEASURE, str(tmp_path / "large.beton"))
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1000


MEASURE = """
import resource, sys
from pathlib import Path
from addertrain.data import PictureLoader
from addertrain.data.beton.reader import BetonReader

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
reader = BetonReader.open(Path(sys.argv[1]))
loader = PictureLoader(reader, image_size=lambda epoch: 224, global_batch_size=256, training=True)
assert len(loader) == 5004
assert len(loader._order(1)) == 1281167
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) / 1024)
"""


def _foreign(path: Path, content: bytes) -> Path:
    """A file of one JPEG that another program has stored as it was, with nothing beside it."""
    one = PictureFiles(path.parent, ("x.jpg",), np.zeros(1, dtype=np.int64), ("a",), "one file")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("addertrain.data.beton.write._stored", lambda *_: [(0, _stored_as_it_is(content))])
        write_beton(one, path, SMALL_PAGES)
    side_path(path).unlink()
    return path


def _stored_as_it_is(content: bytes) -> Stored:
    checksum = image_checksum(np.frombuffer(content, dtype=np.uint8))
    return Stored(JPEG, 90, 160, checksum, content)


def _jpeg(mode: str = "RGB", height: int = 90) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(waves(0, height, 160)).convert(mode).save(stream, "JPEG")
    return stream.getvalue()


STRANGE = {
    "CMYK": (_jpeg("CMYK"), "expected a JPEG in RGB or grey, got CMYK or YCCK, which FFCV cannot decode"),
    "a hole": (_jpeg()[:700] + bytes(300) + _jpeg()[1000:], "expected an intact JPEG, got a damaged one"),
    "cut": (_jpeg()[:900], "expected an intact JPEG, got a damaged one"),
    "other sides": (_jpeg(height=80), "expected 90 x 160 pixels, got 80 x 160"),
    "no JPEG": (b"\x89PNG\r\n\x1a\n" + bytes(99), "expected a JPEG, got 107 other bytes"),
    "a strange version": (_jpeg().replace(b"JFIF\0\1", b"JFIF\0\0"), "one that only others do"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_the_decoder_that_trains_would_stumble_on_is_not_adopted(kind: str, tmp_path: Path) -> None:
    content, words = STRANGE[kind]
    path = _foreign(tmp_path / "x.beton", content)
    with pytest.raises(DataError, match=rf"x\.beton: sample 0: .*{words}"):
        adopt(path)
    assert not side_path(path).exists()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_what_is_adopted_can_be_trained_on(mode: str, tmp_path: Path) -> None:
    path = _foreign(tmp_path / "x.beton", _jpeg(mode))
    assert adopt(path).count == 1
    reader = BetonReader.open(path)
    images = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    reader.read(np.zeros(1, dtype=np.int64), center_crops(1, share=0.875), images)
    assert images.std() > 0
