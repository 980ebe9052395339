"""Folders of classes: pictures and labels as torchvision reads them, each once; what is passed over."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from addertrain.data import DataError
from addertrain.data.decoding.picture import decode_picture, read_picture
from addertrain.data.sources.folder import folder_of_classes
from tests.data.photographs import waves


def test_a_folder_is_numbered_as_torchvision_does(folder: Path) -> None:
    files = folder_of_classes(folder)
    theirs = torchvision.datasets.ImageFolder(str(folder))
    assert [str(folder / path) for path in files.paths] == [path for path, _ in theirs.samples]
    assert files.labels.tolist() == theirs.targets
    assert list(files.classes) == theirs.classes


def test_a_picture_is_what_pillow_reads(folder: Path) -> None:
    files = folder_of_classes(folder)
    picture = files.picture(3).pixels
    with Image.open(folder / files.paths[3]) as image:
        expected = np.array(image.convert("RGB"))
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected).max() <= 2  # two builds of the same decoder
    assert picture.flags.c_contiguous


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1", "I;16"])
def test_any_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("picture.jpg" if mode in ("L", "CMYK") else "picture.png")
    image = Image.fromarray(waves(1, 40, 50))
    (image.convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)).save(path)
    path.rename(path.with_suffix(".jpeg"))  # ImageNet, too, holds a PNG that calls itself a JPEG
    picture = read_picture(path.with_suffix(".jpeg")).pixels
    assert picture.shape == (40, 50, 3)
    assert picture.dtype == np.uint8


@pytest.mark.parametrize("keep", [0, 2, 10, 400, -200])
def test_part_of_a_picture_is_refused_by_name(folder: Path, keep: int) -> None:
    encoded = next(folder.rglob("*.jpg")).read_bytes()[:keep]
    with pytest.raises(
        DataError,
        match=r"some\.jpg: expected an (image, got \d+ bytes|intact JPEG)",
    ):
        decode_picture(encoded, name="some.jpg")


def test_a_file_that_has_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg: expected a readable image, got: No such file"):
        read_picture(tmp_path / "gone.jpg")


def test_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder with one folder of images per class"):
        folder_of_classes(tmp_path / "none")
    with pytest.raises(DataError, match="expected one folder of images per class in it, got none"):
        folder_of_classes(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"a: expected images"):
        folder_of_classes(tmp_path)


def test_some_of_the_files_travel_light(folder: Path) -> None:
    files = folder_of_classes(folder)
    some = pickle.loads(pickle.dumps(files.some(range(7, 9))))
    assert len(pickle.dumps(files.some(range(7, 9)))) < 1000
    assert [some.name(k) for k in range(2)] == list(files.paths[7:9])
    assert np.array_equal(some.picture(1).pixels, files.picture(8).pixels)
    assert some.labels.tolist() == files.labels[7:9].tolist()


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """a/ and b/ with two pictures each."""
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(2):
            Image.fromarray(waves(k, 20, 30)).save(tmp_path / "data" / name / f"{k}.jpg")
    return tmp_path / "data"


def names(root: Path) -> list[str]:
    return list(folder_of_classes(root).paths)


PLAIN = ["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"]


def test_links_that_lead_back_add_nothing_and_are_counted(classes: Path) -> None:
    for number in range(3):
        (classes / "a" / f"self{number}").symlink_to(".")
    (classes / "b" / "up").symlink_to("..")
    (classes / "b" / "other").symlink_to("../a")
    files = folder_of_classes(classes)
    assert list(files.paths) == PLAIN
    assert files.remarks == ("skipped: 5 folders seen before",)


def test_a_linked_folder_from_elsewhere_is_read_once(classes: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    Image.fromarray(waves(7, 20, 30)).save(tmp_path / "more" / "x.png")
    for name in ("l", "m"):
        (classes / "a" / name).symlink_to(tmp_path / "more")
    assert len([name for name in names(classes) if name.endswith("x.png")]) == 1


def test_two_classes_of_one_folder_are_refused(classes: Path) -> None:
    (classes / "c").symlink_to("a")
    with pytest.raises(
        DataError, match=r"expected different folders for the classes, got one that is also .*a; remove"
    ):
        names(classes)


def test_hidden_files_and_folders_are_left_out_and_counted(classes: Path) -> None:
    for folder in (classes / ".ipynb_checkpoints", classes / "a" / ".ipynb_checkpoints"):
        folder.mkdir()
        (folder / "0.jpg").write_bytes((classes / "a" / "0.jpg").read_bytes())
    (classes / "b" / "._0.jpg").write_bytes(b"macOS")
    files = folder_of_classes(classes)
    assert (files.classes, list(files.paths)) == (("a", "b"), PLAIN)
    assert files.remarks == ("skipped: 3 hidden",)


@pytest.mark.parametrize("parts", [("train", "val"), ("training", "test"), ("Train", "Validation", "extra")])
def test_the_parts_of_a_data_set_are_no_classes(
    classes: Path, tmp_path: Path, parts: tuple[str, ...]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for part in parts:
        (root / part).symlink_to(classes) if part == parts[0] else shutil.copytree(classes, root / part)
    with pytest.raises(
        DataError, match=rf"got the splits of a data set .*write each split by itself: {root / parts[0]}"
    ):
        names(root)


def test_the_folder_above_the_classes_is_refused(classes: Path) -> None:
    with pytest.raises(DataError, match=rf"got only data, which contains folders; name {classes}"):
        names(classes.parent)


def test_links_in_a_circle_are_no_folders(classes: Path) -> None:
    for name, other in (("x", "y"), ("y", "x"), ("z.jpg", "z.jpg")):
        (classes / "a" / name).symlink_to(other)
        (classes / f"{name}_").symlink_to(classes / "a" / name)
    files = folder_of_classes(classes)
    assert list(files.paths) == [*PLAIN[:2], "a/z.jpg", *PLAIN[2:]]
    with pytest.raises(DataError, match=r"z\.jpg: expected a readable image, got: Too many levels"):
        files.picture(2)


def test_classes_may_be_called_train_and_test(classes: Path) -> None:
    (classes / "a").rename(classes / "train")
    (classes / "b").rename(classes / "test")
    assert folder_of_classes(classes).classes == ("test", "train")


def test_folders_of_folders_are_read_and_a_remark_asks_whether_they_were_meant(classes: Path) -> None:
    for name in "ab":
        (classes / name / "deep").mkdir()
        for path in (classes / name).glob("*.jpg"):
            path.rename(classes / name / "deep" / path.name)
    files = folder_of_classes(classes)
    assert len(files) == 4
    assert "all images of the classes are in subfolders, as in a/" in files.remarks[0]
    theirs = torchvision.datasets.ImageFolder(str(classes))
    assert [str(classes / path) for path in files.paths] == [path for path, _ in theirs.samples]


def test_what_is_no_picture_by_its_name_is_counted_by_suffix(classes: Path) -> None:
    whole = (classes / "a" / "0.jpg").read_bytes()
    for name in ("x.jfif", "y.JPE", "no_suffix"):
        (classes / "a" / name).write_bytes(whole)
    for name in ("notes.txt", "labels.txt", "README", "x.jpg.part"):
        (classes / "b" / name).write_text("words")
    os.mkfifo(classes / "b" / "pipe.jpg")
    (classes / "list.csv").write_text("words")
    files = folder_of_classes(classes)
    assert [name for name in files.paths if name not in PLAIN] == ["a/no_suffix", "a/x.jfif", "a/y.JPE"]
    assert files.remarks == (
        "skipped: 1 .part, 2 .txt, 1 files next to the class folders, 1 no regular files, 1 without a suffix",
    )


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "JPEG"])
def test_pictures_without_a_suffix_are_known_by_how_they_begin(classes: Path, form: str) -> None:
    Image.fromarray(waves(1, 20, 30)).save(classes / "a" / "picture", form)
    assert "a/picture" in names(classes)


def test_a_class_without_pictures_needs_a_word(classes: Path) -> None:
    (classes / "c").mkdir()
    (classes / "c" / "x.psd").write_text("words")
    with pytest.raises(
        DataError, match=r"c: expected images .*, got none \(1 \.psd skipped\).*--allow-empty"
    ):
        names(classes)
    files = folder_of_classes(classes, allow_empty=True)
    assert files.classes == ("a", "b", "c")
    assert files.remarks == ("skipped: 1 .psd", "classes without images: 1 (c)")


def test_a_link_to_nothing_is_a_picture_that_is_named(classes: Path) -> None:
    (classes / "a" / "gone.jpg").symlink_to("nowhere.jpg")
    files = folder_of_classes(classes)
    with pytest.raises(DataError, match=r"gone\.jpg: expected a readable image, got: No such file"):
        files.picture(files.paths.index("a/gone.jpg"))


def test_a_pipe_is_named_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(DataError, match="expected a file, got a folder, pipe or device"):
        read_picture(tmp_path / "x.jpg")
