"""Data that changed between two sessions, or behind an evaluation, are noticed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from addertrain.checkpoint.files import write_checkpoint
from addertrain.data import DataError, ImageArrays, ImageData
from addertrain.data.loaders.torchvision_reader import TorchvisionReader
from addertrain.data.sources.folder import PictureFiles
from addertrain.errors import UsageError
from addertrain.train.data_record import RECORD, check_evaluation, check_resumption, data_record
from tests.train.small_runs import random_arrays

CLASSES = ("c0", "c1", "c2")


def _pictures(num_images: int, classes: tuple[str, ...] = CLASSES) -> TorchvisionReader:
    labels = np.arange(num_images) * len(classes) // num_images
    paths = tuple(f"{classes[label]}/{number}.png" for number, label in enumerate(labels))
    return TorchvisionReader(PictureFiles(Path("absent"), paths, labels, classes, "no folder"))


def _picture_data(num_train: int = 12, num_test: int = 6, classes: tuple[str, ...] = CLASSES) -> ImageData:
    train, test = (_pictures(number, classes) for number in (num_train, num_test))
    return ImageData(train, test, mean=(0.5,) * 3, std=(0.5,) * 3, num_classes=len(classes))


def _array_data() -> ImageData:
    arrays = random_arrays(16)
    return ImageData(arrays, arrays, mean=(0.5,), std=(0.5,), num_classes=10)


def _saved(folder: Path, data: ImageData) -> Path:
    tensors: dict[str, dict[str, torch.Tensor]] = {"model": {}, "optimizer": {}, "rank_buffers": {}}
    path = folder / "epoch_0001_step_000005"
    write_checkpoint(path, tensors, {"epoch": 1, "global_step": 5, RECORD: data_record(data)})
    return path


def _silent(line: str) -> None:
    raise AssertionError(line)


def test_the_same_data_pass(tmp_path: Path) -> None:
    for name, data in (("a", _picture_data()), ("b", _array_data())):
        (tmp_path / name).mkdir()
        checkpoint = _saved(tmp_path / name, data)
        check_resumption(checkpoint, data_record(data), _silent)
        check_evaluation(checkpoint, data_record(data), _silent)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (_picture_data(num_train=18), "12 training images there, 18 here"),
        (_picture_data(num_train=9), "12 training images there, 9 here"),
        (_picture_data(classes=("z", "c1", "c2")), "class 0 is 'c0' there, 'z' here"),
        (_picture_data(classes=("c0", "c1")), "3 classes there, 2 here"),
    ],
)
def test_a_resumption_on_other_pictures_is_refused(tmp_path: Path, now: ImageData, words: str) -> None:
    checkpoint = _saved(tmp_path, _picture_data())

    with pytest.raises(
        UsageError, match=rf"expected the data that it was trained on, got others \(.*{words}"
    ):
        check_resumption(checkpoint, data_record(now), _silent)


def test_pictures_that_changed_places_are_noticed(tmp_path: Path) -> None:
    """Files moved between two classes, one for one: as many pictures, the same labels."""
    data = _picture_data()
    checkpoint = _saved(tmp_path, data)
    train = _pictures(12)
    source = train._source
    assert isinstance(source, PictureFiles)
    paths = (source.paths[0].replace("0.png", "5.png"), *source.paths[1:])
    moved = TorchvisionReader(replace(source, paths=paths))

    with pytest.raises(UsageError, match="other training images or labels than there"):
        check_resumption(checkpoint, data_record(replace(data, train=moved)), _silent)


def test_a_resumption_on_other_pixels_in_memory_is_refused(tmp_path: Path) -> None:
    data = _array_data()
    checkpoint = _saved(tmp_path, data)
    assert isinstance(data.train, ImageArrays)
    pixels = data.train.images_nchw.clone()
    pixels[3, 0, 4, 4] ^= 1

    with pytest.raises(UsageError, match="other training images or labels than there"):
        check_resumption(
            checkpoint, data_record(replace(data, train=ImageArrays(pixels, data.train.labels))), _silent
        )


def test_other_test_pictures_are_told_and_no_more(tmp_path: Path) -> None:
    checkpoint, said = _saved(tmp_path, _picture_data()), list[str]()

    check_resumption(checkpoint, data_record(_picture_data(num_test=9)), said.append)
    check_evaluation(checkpoint, data_record(_picture_data(num_test=9)), said.append)

    assert ["6 test images there, 9 here" in line for line in said] == [True, True]


def test_an_evaluation_by_other_classes_is_refused(tmp_path: Path) -> None:
    checkpoint = _saved(tmp_path, _picture_data())

    with pytest.raises(DataError, match="class 2 is 'c2' there, 'd' here"):
        check_evaluation(checkpoint, data_record(_picture_data(classes=("c0", "c1", "d"))), _silent)


def test_a_checkpoint_of_an_earlier_version_is_taken_as_it_is(tmp_path: Path) -> None:
    tensors: dict[str, dict[str, torch.Tensor]] = {"model": {}, "optimizer": {}, "rank_buffers": {}}
    write_checkpoint(tmp_path / "old", tensors, {"epoch": 1})

    check_resumption(tmp_path / "old", data_record(_array_data()), _silent)
    check_evaluation(tmp_path / "old", data_record(_array_data()), _silent)
