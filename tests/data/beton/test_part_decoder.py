"""Parts of JPEGs: the pixels that decoding all of it gives, for every sampling, size and box; or none."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from addertrain.data import PictureLoader
from addertrain.data.beton import part_decoder
from addertrain.data.beton.part_decoder import decode_part, gives_the_pixels_of
from addertrain.data.beton.reader import BetonReader, decode
from addertrain.data.crops import Box, random_crops
from addertrain.data.decoding import jpeg
from addertrain.errors import RunError
from tests.data.jpegs import SAMPLINGS, assert_same, jpeg_of, photograph, turbo_jpeg
from tests.data.photographs import real_folder

pytestmark = pytest.mark.skipif(
    part_decoder.library() is None, reason="libjpeg-turbo's headers were not there"
)

SIZES = [(160, 200), (75, 101), (33, 17), (16, 16), (5, 40), (3, 2), (1, 1)]


def boxes(height: int, width: int) -> list[Box]:
    """Random crops, all of it, its corners, and single pixels."""
    crops = random_crops(np.arange(6), seed=height, epoch=width)
    corners = product((0, height - 1), (0, width - 1))
    return [
        *(crops.box(k, height, width) for k in range(6)),
        Box(0, 0, height, width),
        *(Box(row, column, 1, 1) for row, column in corners),
        Box(height // 2, width // 2, 1, 1),
    ]


@pytest.mark.skipif(not jpeg.has_turbojpeg(), reason="no libturbojpeg.so.0 on this machine")
@pytest.mark.parametrize("interval", [0, 1, 2, 3])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_part_has_the_pixels_of_the_whole(
    sampling: str, interval: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restart markers divide a row of macroblocks in some of the sizes, and in others they do not."""
    if interval:
        monkeypatch.setenv("TJ_RESTART", f"{interval}B")
    for height, width in SIZES:
        content = turbo_jpeg(photograph(height, width), SAMPLINGS[sampling])
        assert (b"\xff\xdd\x00\x04" in content) == bool(interval)
        for box in boxes(height, width):
            assert_same(content, height, width, box)


def test_with_restart_markers_less_is_decoded_than_lies_above_the_box() -> None:
    content, box = (
        jpeg_of(Image.fromarray(photograph(160, 200)), restart_marker_blocks=1),
        Box(100, 90, 20, 20),
    )
    part = decode_part(content, 160, 200, box)
    assert part is not None
    assert part.box == Box(96, 80, 32, 32)  # whole macroblocks of 16 pixels, with a margin of two


@pytest.mark.parametrize(
    "content",
    [
        jpeg_of(Image.fromarray(photograph(64, 64)), progressive=True),
        jpeg_of(Image.fromarray(photograph(64, 64)).convert("CMYK")),
        jpeg_of(Image.fromarray(photograph(64, 66))),  # of another size than the index says
        b"",
        b"\xff\xd8",
        b"no picture",
    ],
    ids=["progressive", "CMYK", "other size", "empty", "two bytes", "text"],
)
def test_what_has_no_part_is_left_to_the_whole(content: bytes) -> None:
    assert decode_part(content, 64, 64, Box(10, 10, 20, 20)) is None


@pytest.mark.parametrize("settings", [{}, {"restart_marker_blocks": 1}], ids=["plain", "restarts"])
def test_a_jpeg_that_ends_early_has_no_part_behind_the_end(settings: dict[str, Any]) -> None:
    """Nor where any byte of the head is changed, unless the part that comes holds the box."""
    content, box = jpeg_of(Image.fromarray(photograph(64, 80)), **settings), Box(40, 40, 24, 30)
    for length in range(0, len(content) - 2, 37):
        assert decode_part(content[:length], 64, 80, box) is None, length
    for place in range(2, content.index(b"\xff\xda")):
        changed = bytes([*content[:place], content[place] ^ 0x55, *content[place + 1 :]])
        part = decode_part(changed, 64, 80, box)
        assert part is None or part.cut(box).shape == (24, 30, 3)


def test_a_restart_marker_out_of_turn_is_not_cut_at() -> None:
    """Then all of the lines are decoded, by libjpeg's own rules for lost markers, or it warns."""
    content = jpeg_of(Image.fromarray(photograph(64, 80)), restart_marker_blocks=1)
    place = content.index(b"\xff\xd2", content.index(b"\xff\xda"))
    swapped = content[: place + 1] + b"\xd5" + content[place + 2 :]
    assert decode_part(swapped, 64, 80, Box(40, 40, 24, 30)) is None


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [32, 128])
def test_the_reader_gives_the_same_images_either_way(beton: Path, training: bool, size: int) -> None:
    batches = [
        PictureLoader(
            BetonReader.open(beton, only_ffcv=only_ffcv),
            image_size=lambda epoch: size, global_batch_size=45, training=training,
        )
        for only_ffcv in (True, False)
    ]  # fmt: skip
    one, other = (next(iter(loader)).images.numpy() for loader in batches)
    assert np.array_equal(one, other)


def test_another_librarys_pixels_are_noticed() -> None:
    def darker(encoded: bytes, pixels: NDArray[np.uint8]) -> bool | None:
        is_done = decode(encoded, pixels)
        pixels[pixels > 0] -= 1
        return is_done

    assert gives_the_pixels_of(decode)
    assert not gives_the_pixels_of(darker)


def test_without_the_library_pictures_are_decoded_whole(beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_decoder, "library", lambda: None)
    assert decode_part(jpeg_of(Image.new("RGB", (64, 64))), 64, 64, Box(0, 0, 9, 9)) is None
    assert not gives_the_pixels_of(decode)


@pytest.mark.long
@pytest.mark.parametrize("name", ["imagenet-originals", "imagenette"])
def test_every_photographs_part_has_the_pixels_of_the_whole(name: str) -> None:
    folder = real_folder(name)
    if folder is None:
        pytest.skip("no photographs in ADDERTRAIN_DATA")
    num_parts = 0
    for number, path in enumerate(sorted(folder.rglob("*.JPEG"))):
        content = path.read_bytes()
        head = jpeg.read_head(content)
        assert head is not None
        crops = random_crops(np.array([number]), seed=0, epoch=0)
        if decode_part(content, head.height, head.width, box := crops.box(0, head.height, head.width)):
            assert_same(content, head.height, head.width, box)
            num_parts += 1
    assert num_parts > 90


def test_a_library_without_these_functions_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a pull without a build; the operators' library stands for the older one."""
    monkeypatch.setattr(part_decoder, "_LIBRARY", "_C")
    part_decoder.library.cache_clear()
    try:
        with pytest.raises(RunError, match=r"an older one \(.*decode_part\); run launch/setup"):
            part_decoder.library()
    finally:
        part_decoder.library.cache_clear()
