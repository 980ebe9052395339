"""torchvision's sets: the part that was asked for, the files that were checked, one whole number a label."""

import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from addertrain.data import DataError
from addertrain.data.sources.torchvision_sets import _open, torchvision_pictures
from tests.data.idx_files import write_idx, write_mnist


def test_a_torchvision_set_is_read_by_the_name_of_its_class(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    pictures = torchvision_pictures("MNIST", tmp_path, "train")
    theirs = torchvision.datasets.MNIST(str(tmp_path), train=True)
    assert len(pictures) == len(theirs)
    assert len(pictures.classes) == 10
    some = pickle.loads(pickle.dumps(pictures.some([4, 2])))
    assert np.array_equal(some.picture(0).pixels[..., 0], theirs.data[4].numpy())
    assert some.labels.tolist() == theirs.targets[[4, 2]].tolist()
    assert some.name(0) == "MNIST train 4"
    with pytest.raises(DataError, match="name of a class of torchvision"):
        torchvision_pictures("Nothing", tmp_path, "train")
    with pytest.raises(DataError, match="expected its files in"):
        torchvision_pictures("CIFAR10", tmp_path, "train")


def test_train_and_test_are_the_parts_that_they_name(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    assert len(torchvision_pictures("MNIST", tmp_path, "train")) == 40
    assert len(torchvision_pictures("MNIST", tmp_path, "test")) == 20


@pytest.mark.parametrize("word", ["Train", "TRAIN", "training", "val", "valid", "", "trian", "test "])
@pytest.mark.parametrize(
    "set_name", ["MNIST", "FashionMNIST", "KMNIST", "QMNIST", "CIFAR10", "CIFAR100", "USPS"]
)
def test_other_words_are_refused_before_any_file_is_looked_for(
    set_name: str, word: str, tmp_path: Path
) -> None:
    with pytest.raises(
        DataError, match=rf"torchvision:{set_name}: expected --split train or test, got '{word}'"
    ):
        torchvision_pictures(set_name, tmp_path, word)


def _emnist(root: Path) -> None:
    generator = np.random.default_rng(0)
    (root / "EMNIST" / "raw").mkdir(parents=True)
    for part, count in (("train", 7), ("test", 3)):
        stem = str(root / "EMNIST" / "raw" / f"emnist-letters-{part}")
        write_idx(Path(f"{stem}-images-idx3-ubyte"), generator.integers(0, 256, (count, 28, 28)))
        write_idx(Path(f"{stem}-labels-idx1-ubyte"), generator.integers(1, 27, (count,)))


def test_emnist_has_both_parts_of_each_of_its_splits(tmp_path: Path) -> None:
    _emnist(tmp_path)
    assert len(torchvision_pictures("EMNIST", tmp_path, "letters/train")) == 7
    assert len(torchvision_pictures("EMNIST", tmp_path, "letters/test")) == 3
    for word in ("letters", "letters/val", "train"):
        with pytest.raises(DataError, match=r"EMNIST: expected --split \w+/train or \w+/test, got"):
            torchvision_pictures("EMNIST", tmp_path, word)
    with pytest.raises(DataError, match=r"got: Unknown value 'words' for argument split"):
        torchvision_pictures("EMNIST", tmp_path, "words/train")


def test_qmnists_label_is_the_digit(tmp_path: Path) -> None:
    raw = tmp_path / "QMNIST" / "raw"
    raw.mkdir(parents=True)
    write_idx(raw / "qmnist-train-images-idx3-ubyte", np.zeros((5, 28, 28)))
    rows = np.zeros((5, 8), dtype=">i4")
    rows[:, 0], rows[:, 2] = [3, 1, 4, 1, 5], 700  # the digit, the writer
    head = bytes([0, 0, 12, 2]) + np.array([5, 8], dtype=">i4").tobytes()
    (raw / "qmnist-train-labels-idx2-int").write_bytes(head + rows.tobytes())
    assert torchvision_pictures("QMNIST", tmp_path, "train").labels.tolist() == [3, 1, 4, 1, 5]


def test_a_set_without_parts_is_taken_whole(tmp_path: Path) -> None:
    for name in ("Forest", "River"):
        (tmp_path / "eurosat" / "2750" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "eurosat" / "2750" / name / "x.png")
    with pytest.raises(
        DataError, match=r"EuroSAT: expected --split all, because this set has no splits, got 'train'"
    ):
        torchvision_pictures("EuroSAT", tmp_path, "train")
    pictures = torchvision_pictures("EuroSAT", tmp_path, "all")
    assert (len(pictures), pictures.classes) == (2, ("Forest", "River"))


def test_pictures_of_sets_in_files_are_those_of_the_other_readers(tmp_path: Path) -> None:
    """torchvision's own loader would make them black, and white from 255 on."""
    for name, image in (
        ("Forest", Image.fromarray(np.array([[(0, 0, 0, 0), (0, 0, 0, 255)]], dtype=np.uint8))),
        ("River", Image.fromarray(np.array([[0, 257 * 100]], dtype=np.uint16))),
    ):
        (tmp_path / "eurosat" / "2750" / name).mkdir(parents=True)
        image.save(tmp_path / "eurosat" / "2750" / name / "x.png")
    (tmp_path / "eurosat" / "2750" / "River" / "y.png").write_bytes(b"no picture")
    pictures = torchvision_pictures("EuroSAT", tmp_path, "all")
    shown = [pictures.picture(k).pixels[0, :, 0].tolist() for k in range(2)]
    assert shown == [[255, 0], [0, 100]]
    with pytest.raises(DataError, match=r"EuroSAT all 2: expected an image, got 10 bytes"):
        pictures.picture(2)


def test_a_picture_that_a_set_has_only_opened_is_decoded_like_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "caltech256" / "256_ObjectCategories" / "001.ak47"
    folder.mkdir(parents=True)
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(
        stream, "JPEG"
    )
    content = stream.getvalue()
    (folder / "001_0001.jpg").write_bytes(content[:2000] + bytes(200) + content[2200:])
    pictures = torchvision_pictures("Caltech256", tmp_path, "all")
    with pytest.raises(DataError, match=r"Caltech256 all 0: expected an intact JPEG, got a damaged one"):
        pictures.picture(0)


@pytest.mark.parametrize("set_name", ["VisionDataset", "FakeData", "CIFAR", "os"])
def test_what_is_no_set_in_a_folder_is_refused(set_name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected the name of a class of torchvision\.datasets"):
        torchvision_pictures(set_name, tmp_path, "train")


class _Opened:
    """A set as torchvision opens it, with labels of a test's own."""

    def __init__(self, labels: Any) -> None:
        self.labels, self.classes = labels, ["a", "b"]

    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, -1, 1], "expected labels from 0 to 1, got -1 for image 1"),
        ([0, 1, 2], "expected labels from 0 to 1, got 2 for image 2"),
        (torch.zeros(3, 8), r"one whole number per image as its label, got float32 of shape \(3, 8\)"),
        (np.zeros((3, 1), dtype=np.int64), r"got int64 of shape \(3, 1\)"),
        ([0.5, 1.0, 0.0], r"got float64 of shape \(3,\)"),
        ([0, 1], r"got int64 of shape \(2,\)"),
        (None, "expected a data set with one label per image"),
    ],
)
def test_labels_are_checked_before_the_first_picture(
    labels: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("addertrain.data.sources.torchvision_sets._open", lambda *_: _Opened(labels))
    with pytest.raises(DataError, match=words):
        torchvision_pictures("STL10", tmp_path, "unlabeled")


def test_old_processed_files_are_not_read_in_place_of_the_raw_ones(tmp_path: Path) -> None:
    processed = write_mnist(tmp_path).parent / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save(
            (torch.zeros(9, 28, 28, dtype=torch.uint8), torch.zeros(9, dtype=torch.int64)), processed / name
        )
    assert len(torchvision.datasets.MNIST(str(tmp_path))) == 9  # the reason for it
    with pytest.raises(DataError, match=r"MNIST: expected .*raw, got .*processed as well, .*; remove it"):
        torchvision_pictures("MNIST", tmp_path, "train")
    shutil.rmtree(processed)
    assert len(torchvision_pictures("MNIST", tmp_path, "train")) == 40


def test_a_picture_that_a_set_cannot_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path)
    pictures = torchvision_pictures("MNIST", tmp_path, "train")

    def broken(dataset: Any, sample: int) -> Any:
        raise RuntimeError("no such entry")

    monkeypatch.setattr(torchvision.datasets.MNIST, "__getitem__", broken)
    with pytest.raises(
        DataError, match=r"MNIST train 4: expected an image, got: RuntimeError\('no such entry'\)"
    ):
        pictures.picture(4)
    _open.cache_clear()
