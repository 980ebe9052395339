"""CIFAR: both layouts read the same, and nothing in a pickle is run."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from addertrain.data import DataError, ImageData, load_data
from addertrain.recipe import DataRecipe
from tests.data.cifar_files import write_cifar10, write_cifar100


def _load(name: str, root: Path) -> ImageData:
    return load_data(DataRecipe(name=name, root=str(root), global_batch_size=8))


@pytest.mark.parametrize("layout", ["pickled", "binary"])
def test_cifar10_is_read_from_both_layouts(tmp_path: Path, layout: str) -> None:
    images, labels = write_cifar10(tmp_path, layout)
    data = _load("cifar10", tmp_path)

    assert (data.num_classes, len(data.train.labels), len(data.test.labels)) == (10, 50, 10)
    assert data.train.images_nchw.shape == (50, 3, 32, 32)
    assert data.train.images_nchw.is_contiguous(memory_format=torch.channels_last)
    found = torch.cat([data.train.images_nchw, data.test.images_nchw])
    assert np.array_equal(found.numpy().reshape(60, -1), images)
    assert torch.cat([data.train.labels, data.test.labels]).tolist() == labels.tolist()
    assert (data.mean, data.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


@pytest.mark.parametrize("layout", ["pickled", "binary"])
def test_cifar100_has_its_fine_labels(tmp_path: Path, layout: str) -> None:
    images, labels = write_cifar100(tmp_path, layout)
    data = _load("cifar100", tmp_path)

    assert data.num_classes == 100
    assert data.train.labels.tolist() == labels[:40].tolist()
    assert np.array_equal(data.test.images_nchw.numpy().reshape(20, -1), images[40:])


def test_missing_files_are_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cifar10: expected .*cifar-10-batches-py or .*got neither; unpack"):
        _load("cifar10", tmp_path)
    write_cifar10(tmp_path, "pickled")
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(DataError, match="data_batch_4, got No such file"):
        _load("cifar10", tmp_path)


class _Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("touched"),)


def test_a_pickle_that_runs_code_is_refused_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar10(tmp_path, "pickled")
    evil = pickle.dumps({"data": _Evil(), "labels": []})
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(evil)
    with pytest.raises(
        DataError, match=r"expected a pickled batch of arrays in .*data_batch_2, got a pickle"
    ):
        _load("cifar10", tmp_path)

    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an incomplete pickle"),
        (b"\x80\x02}q\x00(X", "an incomplete pickle"),
        (pickle.dumps([1, 2]), "expected 'data' and 'labels'"),
        (pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]}), "expected bytes of shape"),
        (pickle.dumps({"data": np.zeros((2, 9), np.uint8), "labels": [0, 1]}), "expected bytes of shape"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}), "expected 2 labels"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}), "0 to 9"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, -1]}), "got -1"),
    ],
)
def test_damaged_batches_are_refused_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    write_cifar10(tmp_path, "pickled")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        _load("cifar10", tmp_path)

    assert "\n" not in str(caught.value)


def test_a_binary_file_cut_short_is_refused(tmp_path: Path) -> None:
    write_cifar10(tmp_path, "binary")
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="expected records of 3073 bytes"):
        _load("cifar10", tmp_path)
