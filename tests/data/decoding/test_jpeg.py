"""JPEGs: the same pixels by every way to decode them; damage inside is noticed where anything can notice."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from addertrain.data import DataError
from addertrain.data.decoding import jpeg
from addertrain.data.decoding.picture import MAX_PIXELS, decode_picture
from tests.data.photographs import real_folder, waves

needs_turbojpeg = pytest.mark.skipif(not jpeg.has_turbojpeg(), reason="no libturbojpeg.so.0 on this machine")
END = b"\xff\xd9"


def grain(height: int = 160, width: int = 200) -> Image.Image:
    """Waves under noise: pixel data of thousands of bytes, as photographs have."""
    noise = np.random.default_rng(0).integers(-40, 40, (height, width, 3))
    return Image.fromarray(np.clip(waves(2, height, width) + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **settings)
    return stream.getvalue()


def put(content: bytes, place: int, other: bytes) -> bytes:
    return content[:place] + other + content[place + len(other) :]


WAYS: dict[str, dict[str, Any]] = {
    "4:2:0": {},
    "4:4:4": {"subsampling": 0, "quality": 97},
    "progressive": {"progressive": True},
    "own tables": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "RGB": {"keep_rgb": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_pixels_do_not_depend_on_which_library_decodes(
    way: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encoded(grain().convert(mode), **(WAYS[way] if mode == "RGB" or way != "RGB" else {}))
    first = decode_picture(content, name="x").pixels
    monkeypatch.setattr(jpeg, "_library", lambda: None)
    assert np.array_equal(first, decode_picture(content, name="x").pixels)
    with Image.open(io.BytesIO(content)) as image:
        assert np.abs(first.astype(int) - np.array(image.convert("RGB"))).max() <= 2


@needs_turbojpeg
@pytest.mark.parametrize("way", WAYS)
def test_lost_bytes_amid_the_pixels_are_damage(way: str) -> None:
    content = encoded(grain(), **WAYS[way])
    start = len(content) // 2
    lost = content[:start] + content[start + 300 :]
    for damaged in (
        *([] if way == "progressive" else [lost]),  # one of its scans may end early, and rightly
        content[:start] + content[start - 300 :],
        content[: -len(content) // 3],
        content[:-2],
    ):
        with pytest.raises(DataError, match=r"some\.jpg: expected an intact JPEG, got a damaged one \("):
            decode_picture(damaged, name="some.jpg")


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("way", ["4:2:0", "4:4:4", "own tables", "restarts"])
def test_a_hole_of_zeros_is_damage_wherever_it_lies(way: str, share: float) -> None:
    content = encoded(grain(), **WAYS[way])
    hole = put(content, int(share * len(content)) - 200, bytes(198))
    with pytest.raises(DataError, match=r"some\.jpg: expected an intact JPEG, got a damaged one"):
        decode_picture(hole, name="some.jpg")


def test_what_harms_no_pixel_is_no_damage() -> None:
    content = encoded(grain())
    expected = decode_picture(content, name="x").pixels
    first = content.index(b"\xff\xdb")
    for harmless in (
        content[:first] + b"between" + content[first:],
        put(content, content.index(b"JFIF") + 5, b"\0"),  # a version that JFIF never had
        content[:-2] + bytes(5) + END,
        content[:-2] + b"\xff" * 3 + END,
        content + b"appended",
        content + bytes(5000),
        content + encoded(Image.new("RGB", (900, 900))),  # flat: long runs of equal bytes
        content[:2] + b"\xff\xe1\0\x10Exif\0\0damaged!" + content[2:],
    ):
        assert np.array_equal(decode_picture(harmless, name="x").pixels, expected)


def test_an_error_after_a_warning_is_no_picture() -> None:
    """Bytes in excess in the head, and a table that is gone: its number was changed."""
    content = encoded(grain())
    first, second = (place for place in range(len(content)) if content.startswith(b"\xff\xdb", place))
    broken = content[:first] + b"xx" + put(content, second + 4, b"\3")[first:]
    with pytest.raises(DataError, match=r"expected an image, got .* bytes that no decoder reads"):
        decode_picture(broken, name="x")


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("settings", [{}, {"optimize": True}, {"progressive": True}, {"quality": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_flat_pictures_are_whole(value: int, settings: dict[str, Any], mode: str) -> None:
    """Their pixel data may be nothing but zeros."""
    flat = Image.fromarray(np.full((600, 600), value, dtype=np.uint8)).convert(mode)
    assert decode_picture(encoded(flat, **settings), name="x").pixels.shape == (600, 600, 3)


def test_a_picture_beyond_the_limit_of_pixels_is_refused_in_every_format() -> None:
    content = encoded(Image.new("RGB", (8, 8)))
    frame = content.index(b"\xff\xc0")
    sides = put(content, frame + 5, struct.pack(">HH", 60000, 60000))
    png = io.BytesIO()
    Image.new("1", (1, 1)).save(png, "PNG")
    wide = put(png.getvalue(), 16, struct.pack(">II", 60000, 60000))
    wide = put(wide, 29, struct.pack(">I", zlib.crc32(wide[12:29])))
    with pytest.raises(DataError, match=rf"x: expected at most {MAX_PIXELS} pixels, got 60000 x 60000"):
        decode_picture(sides, name="x")
    with pytest.raises(DataError, match=r"x: expected an image, .*3600000000 pixels.* exceeds limit"):
        decode_picture(wide, name="x")


@pytest.mark.parametrize("form", ["AVIF", "PNG", "WEBP", "TIFF", "GIF", "JPEG2000", "BMP", "PPM"])
def test_a_damaged_picture_of_any_format_raises_the_one_error_of_a_picture(form: str) -> None:
    """Whatever its decoder raises; 60 cuts and scrambled stretches of each."""
    stream = io.BytesIO()
    grain(40, 50).save(stream, form)
    content, generator = stream.getvalue(), np.random.default_rng(1)
    for place in np.linspace(0, len(content) - 1, 30).astype(int).tolist():
        for damaged in (content[:place], put(content, place, generator.bytes(min(9, len(content) - place)))):
            assert _complaint(damaged).startswith("some.jpg: expected ")


@pytest.mark.parametrize(
    ("form", "settings"),
    [
        ("PNG", {}),
        ("PNG", {"compress_level": 0}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        pytest.param("TIFF", {"compression": "jpeg"}, marks=needs_turbojpeg),
    ],
)
def test_damage_inside_other_formats_that_can_show_it_is_noticed(form: str, settings: dict[str, Any]) -> None:
    stream = io.BytesIO()
    grain().save(stream, form, **settings)
    content = stream.getvalue()
    decode_picture(content, name="x")
    for share in (0.4, 0.6, 0.8):
        with pytest.raises(DataError, match=r"some\.jpg: expected an (image|intact TIFF), got "):
            decode_picture(put(content, int(share * len(content)), bytes(100)), name="some.jpg")


def _complaint(content: bytes) -> str:
    try:
        decode_picture(content, name="some.jpg")
    except DataError as error:
        return str(error)
    return "some.jpg: expected and got, for the damage lies where no pixel is"


@pytest.mark.long
@pytest.mark.skipif(real_folder("imagenet-originals") is None, reason="no photographs in ADDERTRAIN_DATA")
def test_no_original_is_called_damaged_and_most_damage_is_seen() -> None:
    """100 ImageNet originals; 300 stretches of 20, 200 and 500 zeros in their pixel data."""
    folder = real_folder("imagenet-originals")
    assert folder is not None
    generator, seen = np.random.default_rng(0), {20: 0, 200: 0, 500: 0}
    originals = sorted(folder.rglob("*.JPEG"))
    for path in originals:
        content = path.read_bytes()
        decode_picture(content, name="x")
        first = content.rindex(b"\xff\xda") + 20
        for size in seen:
            hole = put(content, int(generator.integers(first, len(content) - size - 10)), bytes(size))
            head = jpeg.read_head(hole)
            assert head is not None
            seen[size] += jpeg.decode(hole, head)[1] is not None
    assert seen[200] == seen[500] == len(originals)
    assert seen[20] > 0.4 * len(originals)
