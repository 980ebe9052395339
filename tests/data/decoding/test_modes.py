"""Every mode that Pillow can give becomes the right RGB bytes, or is refused by name: docs/data.md."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from addertrain.data import DataError
from addertrain.data.beton import write
from addertrain.data.beton.encode import BetonSettings, store_part
from addertrain.data.beton.format import read_index
from addertrain.data.beton.write import write_beton
from addertrain.data.decoding.modes import Change, Rendering, to_rgb
from addertrain.data.decoding.picture import decode_picture
from addertrain.data.loaders.torchvision_reader import TorchvisionReader
from addertrain.data.sources.folder import folder_of_classes
from tests.data.photographs import waves

GREY = np.array([[0, 60, 128, 255]], dtype=np.uint8)
DEEP = np.array([[0, 257 * 60, 257 * 128, 65535]], dtype=np.uint16)  # the same grey in 16 bits
BIG_ENDIAN = Image.frombytes("I;16B", (4, 1), DEEP.astype(">u2").tobytes())
FLOATS = Image.fromarray(np.array([[0.0, 0.5]], dtype=np.float32))
INTEGERS = Image.fromarray(np.array([[0, 70000]], dtype=np.int32))
PIXELS = waves(3, 6, 8)


def encoded(image: Image.Image, form: str = "PNG", **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **settings)
    return stream.getvalue()


def png(bits: int, kind: int, row: bytes, *, width: int, key: bytes) -> bytes:
    """A PNG of one row with a transparent colour, as Pillow cannot write it."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    head = struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"tRNS", key), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.repeat(np.asarray(values, dtype=np.uint8)[..., None], 3, axis=2)


def pgm(maximum: int, values: list[int]) -> bytes:
    head = f"P5 {len(values)} 1 {maximum}\n".encode()
    return head + np.array(values, dtype=">u2" if maximum > 255 else np.uint8).tobytes()


def with_alpha(colour: tuple[int, int, int], alphas: list[int]) -> Image.Image:
    return Image.fromarray(np.array([[(*colour, alpha) for alpha in alphas]], dtype=np.uint8))


EXACT = {
    "1": (encoded(Image.fromarray(GREY > 100)), grey(np.array([[0, 0, 255, 255]]))),
    "L": (encoded(Image.fromarray(GREY)), grey(GREY)),
    "P": (encoded(Image.fromarray(GREY).convert("P")), grey(GREY)),
    "RGB": (encoded(Image.fromarray(PIXELS)), PIXELS),
    "CMYK": (encoded(Image.new("CMYK", (2, 1), (255, 0, 0, 0)), "TIFF"), np.array([[[0, 255, 255]] * 2])),
    "YCbCr": (encoded(Image.new("YCbCr", (1, 1), (128, 128, 128)), "TIFF"), np.full((1, 1, 3), 128)),
    "I;16 PNG": (encoded(Image.fromarray(DEEP)), grey(GREY)),
    "I;16 TIFF": (encoded(Image.fromarray(DEEP), "TIFF"), grey(GREY)),
    "I;16 TIFF deflate": (encoded(Image.fromarray(DEEP), "TIFF", compression="tiff_deflate"), grey(GREY)),
    "I;16B TIFF": (encoded(BIG_ENDIAN, "TIFF"), grey(GREY)),
    "I;16 JPEG2000": (encoded(Image.fromarray(DEEP), "JPEG2000", irreversible=False), grey(GREY)),
    "I PGM": (pgm(65535, DEEP[0].tolist()), grey(GREY)),
    "PGM of 12 bits": (pgm(4095, [0, 964, 2056, 4095]), grey(GREY)),
    "PGM up to 1000": (pgm(1000, [0, 500, 1000]), grey(np.array([[0, 128, 255]]))),
    "PGM up to 100": (pgm(100, [0, 50, 100]), grey(np.array([[0, 128, 255]]))),
    "white is zero": (
        encoded(Image.fromarray(DEEP), "TIFF", tiffinfo={262: 0}), grey(255 - GREY),
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", EXACT)
def test_what_has_a_form_in_rgb_bytes_gets_it(mode: str) -> None:
    content, expected = EXACT[mode]
    assert np.array_equal(decode_picture(content, name="x").pixels, expected)


TRANSPARENT = {
    "RGBA": encoded(with_alpha((10, 20, 30), [0, 255])),
    "LA": encoded(Image.fromarray(np.array([[(20, 0), (20, 255)]], dtype=np.uint8), "LA")),
    "PA": encoded(with_alpha((10, 20, 30), [0, 255]).convert("PA"), "TIFF"),
    "P with alphas": encoded(
        Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P"), transparency=b"\0\xff"
    ),
    "P of a GIF": encoded(Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P"), "GIF", transparency=0),
    "L with a colour": encoded(Image.fromarray(np.array([[7, 9]], np.uint8)), transparency=7),
    "L of 2 bits": png(2, 0, b"\x60", width=2, key=b"\0\1"),
    "L of 4 bits": png(4, 0, b"\x5e", width=2, key=b"\0\5"),
    "1 with a colour": png(1, 0, b"\x80", width=2, key=b"\0\1"),
    "I;16 with a colour": png(16, 0, struct.pack(">2H", 300, 400), width=2, key=struct.pack(">H", 300)),
    "RGB with a colour": png(8, 2, bytes([1, 2, 3, 1, 2, 4]), width=2, key=struct.pack(">3H", 1, 2, 3)),
    "WebP": encoded(with_alpha((10, 20, 30), [0, 255]), "WEBP", lossless=True, exact=True),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
@pytest.mark.parametrize("background", [(255, 255, 255), (1, 128, 9)])
def test_transparent_pixels_show_the_background_and_opaque_ones_themselves(
    kind: str, background: tuple[int, int, int]
) -> None:
    pixels, change = decode_picture(TRANSPARENT[kind], Rendering(background=background), name="x")
    assert tuple(pixels[0, 0]) == background
    assert tuple(pixels[0, 1]) != background
    assert change & Change.LAID


def test_half_transparent_pixels_are_mixed() -> None:
    pixels = decode_picture(encoded(with_alpha((0, 100, 200), [51])), name="x").pixels
    assert pixels.tolist() == [[[204, 224, 244]]]  # a fifth of the colour, four of white


@pytest.mark.parametrize("mode", ["RGBa", "La"])
def test_colours_that_are_multiplied_by_alpha_are_laid_as_the_others(mode: str) -> None:
    plain = with_alpha((40, 40, 40), [0, 128, 255]).convert("RGBA" if mode == "RGBa" else "LA")
    both = [to_rgb(image, Rendering()).pixels.astype(int) for image in (plain, plain.convert(mode))]
    assert np.abs(both[0] - both[1]).max() <= 1


def test_an_opaque_picture_is_not_changed() -> None:
    opaque = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 255, dtype=np.uint8)])
    pixels, change = decode_picture(encoded(Image.fromarray(opaque)), name="x")
    assert np.array_equal(pixels, PIXELS)
    assert change == 0


REFUSED = {
    "F TIFF": (encoded(FLOATS, "TIFF"), "floats without one"),
    "F PFM": (b"Pf 2 1 -1.0\n" + np.array([0, 0.5], dtype="<f4").tobytes(), "floats without one"),
    "I TIFF": (encoded(INTEGERS, "TIFF"), "integers without one"),
    "signed bytes": (encoded(Image.fromarray(GREY), "TIFF", tiffinfo={339: 2}), "got signed ones"),
    "LAB": (encoded(Image.new("LAB", (2, 2)), "TIFF"), "got mode LAB"),
    "RGB of 16 bits with a colour": (
        png(16, 2, bytes(12), width=2, key=bytes(6)), "8 bits per channel in an image with a transparent",
    ),
    "a format for textures": (encoded(Image.new("RGB", (8, 8)), "DDS"), "not one of JPEG, PNG"),
    "a format for documents": (encoded(Image.new("RGB", (8, 8)), "PDF"), "not one of JPEG, PNG"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_form_in_rgb_bytes_is_refused_by_name(kind: str) -> None:
    content, words = REFUSED[kind]
    with pytest.raises(DataError, match=rf"some\.png: .*{words}"):
        decode_picture(content, name="some.png")


def test_a_stated_white_gives_floats_and_dark_integers_their_range() -> None:
    floats = encoded(Image.fromarray(np.array([[0, 0.25, 1]], dtype=np.float32)), "TIFF")
    assert decode_picture(floats, Rendering(white=1.0), name="x").pixels[0, :, 0].tolist() == [0, 64, 255]
    twelve = encoded(Image.fromarray(np.array([[0, 1024, 4095]], dtype=np.uint16)))
    decoded = decode_picture(twelve, Rendering(white=4095), name="x")
    assert decoded.pixels[0, :, 0].tolist() == [0, 64, 255]
    assert decoded.change == Change.SCALED
    assert decode_picture(twelve, name="x").change == Change.SCALED | Change.DIM
    assert decode_picture(pgm(1000, [0, 500, 1000]), Rendering(white=4095), name="x").pixels[0, 2, 0] == 255
    no_number = encoded(Image.fromarray(np.array([[0, np.nan]], dtype=np.float32)), "TIFF")
    for content, words in ((twelve, "values from 0 to 100 .*got 0 to 4095"), (no_number, "got nan to nan")):
        with pytest.raises(DataError, match=words):
            decode_picture(content, Rendering(white=100), name="x")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_as_viewers_show_them(form: str, orientation: int) -> None:
    corner = np.zeros((16, 32, 3), dtype=np.uint8)
    corner[:8, :8] = 255  # where the first row and column are stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(form, {})
    pixels, change = decode_picture(encoded(Image.fromarray(corner), form, exif=exif, **lossless), name="x")
    assert pixels.shape == ((16, 32, 3) if orientation < 5 else (32, 16, 3))
    # EXIF 2.32, tag 274: the stored first row and column are shown at ...
    is_bottom, is_right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    shown = pixels[-4 if is_bottom else 4, -4 if is_right else 4]
    assert shown.min() > 200
    assert pixels[4 if is_bottom else -4, 4 if is_right else -4].max() < 60
    assert change == (Change.TURNED if orientation > 1 else 0)


def test_both_loaders_get_the_same_pixels_of_every_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    contents = [content for content, _ in EXACT.values()] + list(TRANSPARENT.values())
    for number, content in enumerate(contents):
        (tmp_path / "train" / "a" / f"{number:02d}.png").write_bytes(content)
    files = folder_of_classes(tmp_path / "train")
    monkeypatch.setattr(
        write,
        "_stored",
        lambda source, samples, settings, _: zip(samples, store_part(source, samples, settings), strict=True),
    )
    side = write_beton(files, tmp_path / "x.beton", BetonSettings(format="raw", page_size=1 << 17))
    index, content = read_index(tmp_path / "x.beton"), (tmp_path / "x.beton").read_bytes()
    reader = TorchvisionReader(files)
    assert len(index) == len(reader) == len(contents)
    for k in range(len(index)):
        first = int(index.offsets[k])
        assert content[first : first + int(index.sizes[k])] == files.picture(k).pixels.tobytes()
    assert side.settings["background"] == "#ffffff"
    assert any(line.startswith("blended with the background #ffffff: 12") for line in side.remarks)
    assert any(line.startswith("grey of more than 8 bits, scaled to 8: ") for line in side.remarks)
