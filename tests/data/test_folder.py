"""Folders of classes, lists of files, torchvision's sets: pictures and labels as torchvision reads them."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from addertrain.data import DataError
from addertrain.data.decode import decode_picture, read_picture
from addertrain.data.folder import folder_of_classes, list_of_files
from addertrain.data.torchvision_sets import torchvision_pictures
from tests.data.idx_files import write_mnist
from tests.data.photographs import waves


def test_a_folder_is_numbered_as_torchvision_does(folder: Path) -> None:
    files = folder_of_classes(folder)
    theirs = torchvision.datasets.ImageFolder(str(folder))
    assert [str(folder / path) for path in files.paths] == [path for path, _ in theirs.samples]
    assert files.labels.tolist() == theirs.targets
    assert list(files.classes) == theirs.classes


def test_a_picture_is_what_pillow_reads(folder: Path) -> None:
    files = folder_of_classes(folder)
    picture = files.picture(3)
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
    picture = read_picture(path.with_suffix(".jpeg"))
    assert picture.shape == (40, 50, 3)
    assert picture.dtype == np.uint8


@pytest.mark.parametrize("keep", [0, 2, 10, 400, -200])
def test_part_of_a_picture_is_refused_by_name(folder: Path, keep: int) -> None:
    encoded = next(folder.rglob("*.jpg")).read_bytes()[:keep]
    with pytest.raises(DataError, match=r"some\.jpg: expected a picture, got \d+ bytes that are none"):
        decode_picture(encoded, name="some.jpg")


def test_a_file_that_has_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg: expected a readable picture, got: No such file"):
        read_picture(tmp_path / "gone.jpg")


def test_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder with a folder of pictures for each class"):
        folder_of_classes(tmp_path / "none")
    with pytest.raises(DataError, match="for each class in it, got none"):
        folder_of_classes(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"a: expected pictures"):
        folder_of_classes(tmp_path)


def test_a_list_of_files_takes_numbers_or_names(folder: Path, tmp_path: Path) -> None:
    files = folder_of_classes(folder)
    listed = tmp_path / "list.tsv"
    listed.write_text("".join(f"{folder / files.paths[k]}\t{files.labels[k]}\n" for k in (3, 44, 10)))
    read = list_of_files(listed)
    assert read.labels.tolist() == [0, 4, 1]
    assert read.classes == ("0", "1", "2", "3", "4")
    assert np.array_equal(read.picture(1), files.picture(44))
    listed.write_text("a.jpg\tdog\nb.jpg\tcat\n")
    assert list_of_files(listed).labels.tolist() == [1, 0]
    for text, words in [
        ("", "lines"),
        ("a.jpg\n", "line 1, got 'a.jpg'"),
        ("a.jpg\t1\n\tx\n", "on line 2"),
        ("a\t-1\n", "got -1"),
    ]:
        listed.write_text(text)
        with pytest.raises(DataError, match=words):
            list_of_files(listed)


def test_some_of_the_files_travel_light(folder: Path) -> None:
    files = folder_of_classes(folder)
    some = pickle.loads(pickle.dumps(files.some(range(7, 9))))
    assert len(pickle.dumps(files.some(range(7, 9)))) < 1000
    assert [some.name(k) for k in range(2)] == list(files.paths[7:9])
    assert np.array_equal(some.picture(1), files.picture(8))
    assert some.labels.tolist() == files.labels[7:9].tolist()


def test_a_torchvision_set_is_read_by_the_name_of_its_class(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    pictures = torchvision_pictures("MNIST", tmp_path, "train")
    theirs = torchvision.datasets.MNIST(str(tmp_path), train=True)
    assert len(pictures) == len(theirs)
    assert len(pictures.classes) == 10
    some = pickle.loads(pickle.dumps(pictures.some([4, 2])))
    assert np.array_equal(some.picture(0)[..., 0], theirs.data[4].numpy())
    assert some.labels.tolist() == theirs.targets[[4, 2]].tolist()
    assert some.name(0) == "MNIST train 4"
    with pytest.raises(DataError, match="name of a class of torchvision"):
        torchvision_pictures("Nothing", tmp_path, "train")
    with pytest.raises(DataError, match="expected its files in"):
        torchvision_pictures("CIFAR10", tmp_path, "train")
