"""Digits and MNIST: what is read, and what is said when it cannot be read."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from addertrain.data import DataError, ImageData, load_data
from addertrain.data.sets.digits import stratified_split
from addertrain.data.sets.resize import resize_bilinear
from addertrain.recipe import DataRecipe
from tests.data.idx_files import write_idx, write_mnist


def settings(name: str, root: str | None = None) -> DataRecipe:
    return DataRecipe(name=name, root=root, global_batch_size=8)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_data(settings("digits"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", refuse)


def test_digits_have_the_fixed_stratified_split(digits: ImageData) -> None:
    assert (len(digits.train.labels), len(digits.test.labels)) == (1437, 360)
    assert digits.num_classes == 10
    assert digits.test.labels.bincount().tolist() == [36, 36, 36, 36, 37, 36, 36, 36, 35, 36]
    assert digits.test.labels[:12].tolist() == [9, 1, 9, 5, 0, 8, 2, 7, 6, 7, 6, 0]
    assert int(digits.train.images_nchw.long().sum()) == 114379549


def test_digits_are_uint8_channels_last_and_their_statistics_are_stated(digits: ImageData) -> None:
    for part in (digits.train, digits.test):
        assert part.images_nchw.dtype == torch.uint8
        assert part.images_nchw.shape[1:] == (1, 32, 32)
        assert part.images_nchw.is_contiguous(memory_format=torch.channels_last)
        assert part.labels.dtype == torch.int64
    pixels = digits.train.images_nchw.double() / 255
    assert digits.mean == (pytest.approx(pixels.mean().item(), abs=1e-4),)
    assert digits.std == (pytest.approx(pixels.std().item(), abs=1e-4),)


def test_the_split_is_disjoint_complete_and_even() -> None:
    labels = np.arange(1000) % 7
    train, test = stratified_split(labels)
    assert sorted([*train, *test]) == list(range(1000))
    assert np.ptp(np.bincount(labels[test])) <= 1


def test_resizing_matches_interpolation_image_by_image_across_chunks() -> None:
    images = torch.randint(0, 256, (5000, 1, 6, 6), dtype=torch.uint8)
    resized = resize_bilinear(images, 8)
    for k in (0, 4095, 4096, 4999):
        one = torch.nn.functional.interpolate(
            images[k : k + 1].float(), size=(8, 8), mode="bilinear", antialias=True
        )
        assert (resized[k : k + 1] - one).abs().max() <= 0.5


def test_mnist_is_read_from_torchvisions_layout(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = load_data(settings("mnist", str(tmp_path)))
    assert data.train.images_nchw.shape == (40, 1, 32, 32)
    assert data.test.images_nchw.shape == (20, 1, 32, 32)
    assert (data.mean, data.std, data.num_classes) == ((0.1307,), (0.3081,), 10)
    original = torchvision.datasets.MNIST(str(tmp_path), train=True)
    assert torch.equal(data.train.labels, original.targets)
    assert torch.equal(data.train.images_nchw, resize_bilinear(original.data.unsqueeze(1), 32))


def test_reading_writes_nothing(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    load_data(settings("mnist", str(tmp_path)))
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_the_root_is_the_recipes_else_the_variables_else_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    write_mnist(tmp_path / "named", num_train=11)
    write_mnist(tmp_path / "variable", num_train=12)
    write_mnist(tmp_path / "data", num_train=13)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADDERTRAIN_DATA", str(tmp_path / "variable"))
    assert len(load_data(settings("mnist", str(tmp_path / "named"))).train.labels) == 11
    assert len(load_data(settings("mnist")).train.labels) == 12
    monkeypatch.delenv("ADDERTRAIN_DATA")
    assert len(load_data(settings("mnist")).train.labels) == 13


def error_of(root: Path | None) -> str:
    with pytest.raises(DataError) as caught:
        load_data(settings("mnist", str(root) if root else None))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_data_names_folder_and_override(tmp_path: Path, no_network: None) -> None:
    message = error_of(tmp_path)
    assert "train-images-idx3-ubyte, train-labels-idx1-ubyte" in message
    for word in (str(tmp_path / "MNIST" / "raw"), "--data.root", "ADDERTRAIN_DATA"):
        assert word in message, message


def test_a_missing_root_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    message = error_of(tmp_path / "dta")
    assert f"expected a folder {tmp_path / 'dta'} (from data.root)" in message
    monkeypatch.setenv("ADDERTRAIN_DATA", str(tmp_path / "dta"))
    assert "(from ADDERTRAIN_DATA)" in error_of(None)
    assert not (tmp_path / "dta").exists()


def test_an_unwritable_root_is_one_line(tmp_path: Path, no_network: None) -> None:
    (tmp_path / "MNIST").write_text("a file where a folder should be")
    assert "--data.root" in error_of(tmp_path)


def test_missing_data_is_downloaded_once_where_there_is_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch(url: str, download_root: str, filename: str, md5: str) -> None:
        fetched.append(filename)
        if len(fetched) == 4:
            (tmp_path / "MNIST" / "raw").rmdir()
            write_mnist(tmp_path)

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", fetch)
    for _ in range(2):
        assert len(load_data(settings("mnist", str(tmp_path))).train.labels) == 40
    assert len(fetched) == 4


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("train-images-idx3-ubyte", lambda data: data[:-1], "bytes (28x28"),
        ("t10k-images-idx3-ubyte", lambda data: data + b"x", "bytes (28x28"),
        ("train-labels-idx1-ubyte", lambda data: b"", "an idx file"),
        ("train-labels-idx1-ubyte", lambda data: data[:6], "an idx file"),
        ("t10k-labels-idx1-ubyte", lambda data: b"<html>not found</html>", "an idx file"),
        ("t10k-images-idx3-ubyte", lambda data: data[:3] + b"\x01" + data[4:], "an idx file"),
        ("train-labels-idx1-ubyte", lambda data: data[:-1] + b"\x0a", "labels from 0 to 9"),
    ],
)
def test_a_damaged_file_is_named(
    tmp_path: Path, file: str, damage: Callable[[bytes], bytes], words: str
) -> None:
    path = write_mnist(tmp_path) / file
    path.write_bytes(damage(path.read_bytes()))
    message = error_of(tmp_path)
    assert words in message
    assert str(path) in message
    assert "delete it to download it again" in message


def test_counts_and_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    raw = write_mnist(tmp_path)
    write_idx(raw / "train-labels-idx1-ubyte", np.zeros(39))
    assert "as many images as labels" in error_of(tmp_path)
    write_idx(raw / "train-labels-idx1-ubyte", np.zeros(40))
    write_idx(raw / "train-images-idx3-ubyte", np.zeros((40, 27, 28)))
    assert "28x28" in error_of(tmp_path)


def test_old_processed_files_are_not_read(tmp_path: Path) -> None:
    """torchvision up to 0.10 left them, and later ones read them in place of MNIST/raw/."""
    processed = write_mnist(tmp_path).parent / "processed"
    before = load_data(settings("mnist", str(tmp_path)))
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        other = torch.zeros(9, 28, 28, dtype=torch.uint8), torch.zeros(9, dtype=torch.int64)
        torch.save(other, processed / name)
    after = load_data(settings("mnist", str(tmp_path)))
    assert torch.equal(before.train.images_nchw, after.train.images_nchw)
    assert torch.equal(before.test.labels, after.test.labels)


@pytest.mark.skipif(
    not os.environ.get("ADDERTRAIN_DATA"), reason="needs the real MNIST under ADDERTRAIN_DATA"
)
def test_the_real_mnist_has_its_known_size_and_statistics() -> None:
    data = load_data(settings("mnist"))
    assert (len(data.train.labels), len(data.test.labels)) == (60_000, 10_000)
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    mean = (data.train.images_nchw.double() / 255).mean().item()
    assert mean == pytest.approx(data.mean[0], abs=5e-4)  # resizing keeps the mean and softens the contrast
