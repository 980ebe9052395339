"""JPEGs that are not compressed again keep every pixel, and get restart markers where these serve."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from addertrain.data import DataError
from addertrain.data.beton import encode, part_decoder
from addertrain.data.beton.encode import BetonSettings, store_part
from addertrain.data.beton.format import JPEG, read_index
from addertrain.data.beton.kept import kept_jpeg, with_markers
from addertrain.data.beton.reader import decode
from addertrain.data.beton.side_file import SideFile, describe, side_path
from addertrain.data.beton.verify import adopt, verify_images
from addertrain.data.beton.write import write_beton
from addertrain.data.crops import Box
from addertrain.data.decoding import jpeg
from addertrain.data.decoding.picture import decode_picture
from addertrain.data.sources.folder import PictureFiles, folder_of_classes
from tests.data.jpegs import SAMPLINGS, assert_same, jpeg_of, photograph, turbo_jpeg
from tests.data.photographs import real_folder

pytestmark = [
    pytest.mark.skipif(part_decoder.library() is None, reason="libjpeg-turbo's headers were not there"),
    pytest.mark.skipif(not jpeg.has_turbojpeg(), reason="no libturbojpeg.so.0 on this machine"),
]

KEPT = BetonSettings(jpegs="kept", page_size=1 << 17)
EXIF_TURNED = Image.Exif()
EXIF_TURNED[0x0112] = 6


def marked(content: bytes, interval: int) -> tuple[bytes, jpeg.JpegHead]:
    """The JPEG with markers, and its new head."""
    head = jpeg.read_head(content)
    assert head is not None
    rewritten = with_markers(content, head, interval)
    assert rewritten is not None
    new_head = jpeg.read_head(rewritten)
    assert new_head is not None
    return rewritten, new_head


def pixels_of(content: bytes) -> list[NDArray[np.uint8]]:
    """By TurboJPEG with the exact inverse transform, and by FFCV with the fast one."""
    exact = decode_picture(content, name="x").pixels
    fast = np.empty_like(exact)
    assert decode(content, fast)
    return [exact, fast]


@pytest.mark.parametrize("is_progressive", [False, True], ids=["sequential", "progressive"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_no_pixel_changes_and_every_row_can_be_cut(sampling: str, is_progressive: bool) -> None:
    for height, width in [(75, 101), (33, 17), (16, 64), (1, 1)]:
        pixels = photograph(height, width)
        content = turbo_jpeg(pixels, SAMPLINGS[sampling], is_progressive=is_progressive)
        rewritten, head = marked(content, 1)

        assert head.can_be_cut
        for before, after in zip(pixels_of(content), pixels_of(rewritten), strict=True):
            assert np.array_equal(before, after)
        assert_same(rewritten, height, width, Box(height // 2, width // 3, 1 + height // 3, 1 + width // 3))


@pytest.mark.parametrize(
    ("sampling", "columns"),
    [("4:4:4", 13), ("4:2:2", 7), ("4:2:0", 7), ("grey", 13), ("4:4:0", 13), ("4:1:1", 4)],
)
def test_the_interval_divides_the_macroblocks_of_the_sampling(sampling: str, columns: int) -> None:
    content = turbo_jpeg(photograph(40, 101), SAMPLINGS[sampling])
    head = jpeg.read_head(content)
    assert head is not None
    assert head.columns == columns

    kept = kept_jpeg(content, decode_picture(content, name="x").pixels, interval=2)

    assert kept is not None
    new_head = jpeg.read_head(kept)
    assert new_head is not None
    assert new_head.restart_interval == (2 if columns == 4 else 1)


def test_markers_that_were_there_make_room_for_the_wanted_ones() -> None:
    content = jpeg_of(Image.fromarray(photograph(48, 96)), restart_marker_blocks=4)
    rewritten, head = marked(content, 3)

    assert (head.restart_interval, head.can_be_cut) == (3, True)
    assert np.array_equal(pixels_of(content)[0], pixels_of(rewritten)[0])


@pytest.mark.parametrize(
    "settings",
    [{"keep_rgb": True}, {"progressive": True, "comment": b"x" * 3000}, {"exif": b"Exif\0\0" + bytes(2000)}],
    ids=["RGB, by its Adobe marker", "comment", "EXIF"],
)
def test_what_decoding_needs_is_kept_and_the_rest_is_left_out(settings: dict[str, Any]) -> None:
    content = jpeg_of(Image.fromarray(photograph(48, 64)), **settings)
    kept = kept_jpeg(content, decode_picture(content, name="x").pixels, interval=2)

    assert kept is not None
    assert (b"Adobe" in kept) == ("keep_rgb" in settings)
    assert np.array_equal(pixels_of(kept)[1], pixels_of(content)[1])
    if "keep_rgb" not in settings:
        assert len(kept) < len(content)


def test_arithmetic_coding_becomes_huffmans(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = turbo_jpeg(photograph(48, 64), SAMPLINGS["4:2:0"])
    monkeypatch.setenv("TJ_ARITHMETIC", "1")
    content = turbo_jpeg(photograph(48, 64), SAMPLINGS["4:2:0"])
    monkeypatch.delenv("TJ_ARITHMETIC")
    assert b"\xff\xc9" in content
    rewritten, head = marked(content, 1)

    assert head.can_be_cut
    assert np.array_equal(pixels_of(rewritten)[0], pixels_of(plain)[0])


@pytest.mark.parametrize("interval", [0, 2])
@pytest.mark.parametrize(
    "content",
    [
        jpeg_of(Image.fromarray(photograph(48, 64)).convert("CMYK")),
        jpeg_of(Image.fromarray(photograph(48, 64)), exif=EXIF_TURNED),
        b"\x89PNG\r\n\x1a\n",
        b"",
    ],
    ids=["CMYK", "turned", "PNG", "empty"],
)
def test_what_needs_other_bytes_is_not_kept(content: bytes, interval: int) -> None:
    pixels = decode_picture(content, name="x").pixels if len(content) > 8 else photograph(48, 64)
    assert kept_jpeg(content, pixels, interval=interval) is None


@pytest.mark.parametrize("interval", [0, 2])
def test_a_jpeg_of_other_pixels_is_not_kept(interval: int) -> None:
    """As where the file was replaced between decoding it and reading its bytes."""
    content = jpeg_of(Image.fromarray(photograph(48, 64)))
    pixels = decode_picture(content, name="x").pixels
    assert kept_jpeg(content, pixels, interval=interval) is not None
    pixels[20, 30, 1] ^= 1
    assert kept_jpeg(content, pixels, interval=interval) is None


@pytest.mark.parametrize("settings", [{}, {"progressive": True}], ids=["sequential", "progressive"])
def test_a_jpeg_that_ends_early_gets_no_markers(settings: dict[str, Any]) -> None:
    content = jpeg_of(Image.fromarray(photograph(64, 80)), **settings)
    head = jpeg.read_head(content)
    assert head is not None
    for length in range(0, len(content) - 2, 173):
        assert with_markers(content[:length], head, 1) is None, length


def test_flat_images_whose_markers_outweigh_them_have_room() -> None:
    content = turbo_jpeg(np.full((400, 800, 3), 90, dtype=np.uint8), SAMPLINGS["4:4:4"], is_progressive=True)
    rewritten, _ = marked(content, 1)
    assert len(rewritten) > 4 * len(content)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> PictureFiles:
    """Two JPEGs that can be kept, one of them progressive, and four images that cannot."""
    folder = tmp_path_factory.mktemp("mixed") / "class_0"
    folder.mkdir()
    small, large = Image.fromarray(photograph(90, 120)), Image.fromarray(photograph(300, 500))
    for name, image, settings in (
        ("0.jpg", small, {"quality": 95}),
        ("1.jpg", small, {"progressive": True, "quality": 95}),
        ("2.jpg", small, {"exif": EXIF_TURNED}),
        ("3.jpg", small.convert("CMYK"), {}),
        ("4.jpg", large, {}),
        ("5.png", small, {}),
    ):
        image.save(folder / name, **settings)
    return folder_of_classes(folder.parent)


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encodes without other processes."""
    from addertrain.data.beton import write

    def stored(source: Any, samples: list[int], settings: BetonSettings, num_workers: int) -> Any:
        yield from zip(samples, store_part(source, samples, settings), strict=True)

    monkeypatch.setattr(write, "_stored", stored)


@pytest.mark.usefixtures("_here")
def test_a_file_says_what_was_kept_and_what_has_markers(mixed: PictureFiles, tmp_path: Path) -> None:
    path = tmp_path / "kept.beton"
    side = write_beton(mixed, path, KEPT)

    assert (side.kept_jpegs, side.marked_jpegs, side.settings["jpegs"]) == (2, 6, "kept")
    assert "markers    in 6 of 6 JPEGs; 2 kept as they came, not compressed again" in describe(
        SideFile.read(path), read_index(path)
    )
    assert verify_images(path) == []
    for sample in (0, 1):
        assert np.array_equal(
            stored_pixels(path, sample), pixels_of((mixed.root / mixed.paths[sample]).read_bytes())[1]
        )

    side_path(path).unlink()
    assert adopt(path).marked_jpegs == 6


def stored_bytes(path: Path, sample: int) -> bytes:
    index = read_index(path)
    assert index.modes[sample] == JPEG
    return path.read_bytes()[int(index.offsets[sample]) :][: int(index.sizes[sample])]


def stored_pixels(path: Path, sample: int) -> NDArray[np.uint8]:
    return pixels_of(stored_bytes(path, sample))[1]


@pytest.mark.usefixtures("_here")
def test_without_markers_a_jpeg_is_kept_byte_for_byte(mixed: PictureFiles, tmp_path: Path) -> None:
    path = tmp_path / "unmarked.beton"
    side = write_beton(mixed, path, replace(KEPT, jpegs="unmarked"))

    assert (side.kept_jpegs, side.marked_jpegs) == (2, 4)
    for sample in (0, 1):
        assert stored_bytes(path, sample) == (mixed.root / mixed.paths[sample]).read_bytes()
    assert verify_images(path) == []


@pytest.mark.usefixtures("_here")
def test_a_kept_jpeg_without_its_markers_fails_verification(
    mixed: PictureFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept.beton"
    with monkeypatch.context() as patch:
        patch.setattr(
            encode, "kept_jpeg", lambda encoded, pixels, interval: kept_jpeg(encoded, pixels, interval=0)
        )
        write_beton(mixed, path, KEPT)

    (first, second) = verify_images(path)[:2]
    assert "sample 0: expected an interval of 2 macroblocks between restart markers" in first
    assert "sample 1: " in second


def test_images_that_no_page_holds_are_compressed_again(mixed: PictureFiles) -> None:
    (stored,) = store_part(mixed.some([0]), [0], replace(KEPT, quality=30, page_size=4096))
    assert not isinstance(stored, str)
    assert stored.change == 0
    assert len(stored.content) <= 4096 < (mixed.root / mixed.paths[0]).stat().st_size


def test_without_the_library_markers_are_refused_before_anything_is_written(
    mixed: PictureFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_decoder, "library", lambda: None)
    with pytest.raises(DataError, match=r"^jpegs: expected the library"):
        write_beton(mixed, tmp_path / "kept.beton", KEPT)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("settings", [{"format": "raw"}, {"restart_interval": 0}])
def test_settings_that_keep_nothing_or_mark_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"^jpegs: expected"):
        BetonSettings(jpegs="kept", **settings)


@pytest.mark.long
@pytest.mark.parametrize("name", ["imagenet-originals", "imagenette"])
def test_no_pixel_of_any_photograph_changes(name: str) -> None:
    folder = real_folder(name)
    if folder is None:
        pytest.skip("no photographs in ADDERTRAIN_DATA")
    num_kept = 0
    for path in sorted(folder.rglob("*.JPEG")):
        content = path.read_bytes()
        picture = decode_picture(content, name=path.name)
        kept = kept_jpeg(content, picture.pixels, interval=2)
        if kept is None:
            head = jpeg.read_head(content)
            assert picture.change or head is None or head.channels == 4, path
            continue
        new_head = jpeg.read_head(kept)
        assert new_head is not None
        assert new_head.can_be_cut
        for before, after in zip(pixels_of(content), pixels_of(kept), strict=True):
            assert np.array_equal(before, after), path
        num_kept += 1
    assert num_kept > 90
