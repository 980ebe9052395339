"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in torchvision's layout, or in the binary one of their home page.

The Python batches are pickles, which may run any code when they are read; `safe_pickle` reads only arrays and
plain values.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from addertrain.data.sets.safe_pickle import UnsafePickle, read_pickle
from addertrain.data.types import ImageArrays, ImageData
from addertrain.errors import DataError
from addertrain.recipe import DataRecipe
from addertrain.recipe.data_sets import DATA_SETS, facts_of

IMAGE_SIZE = 32
_IMAGE_BYTES = 3 * IMAGE_SIZE**2


@dataclass(frozen=True)
class _Set:
    """The files of one of the two sets, in the pickled and in the binary folder."""

    name: str
    pickled_files: tuple[tuple[str, ...], tuple[str, ...]]  # to train, to test
    labels_key: str
    binary_files: tuple[tuple[str, ...], tuple[str, ...]]
    label_bytes: int  # before each binary image; the last one is the label


_SETS = {
    "cifar10": _Set(
        name="cifar10",
        pickled_files=(tuple(f"data_batch_{number}" for number in range(1, 6)), ("test_batch",)),
        labels_key="labels",
        binary_files=(tuple(f"data_batch_{number}.bin" for number in range(1, 6)), ("test_batch.bin",)),
        label_bytes=1,
    ),
    "cifar100": _Set(
        name="cifar100",
        pickled_files=(("train",), ("test",)),
        labels_key="fine_labels",
        binary_files=(("train.bin",), ("test.bin",)),
        label_bytes=2,
    ),
}


def load_cifar_data(settings: DataRecipe, root: Path) -> ImageData:
    """50 000 training and 10 000 test images of "cifar10" or "cifar100" under `root`.

    Raises:
        DataError: files are missing or damaged, or a pickle holds more than data.
    """
    name = settings.name
    chosen = _SETS[name]
    pickled, binary = (root / folder for folder in DATA_SETS[name].folders)
    if pickled.is_dir():
        train, test = (_read(chosen, pickled, files, _pickled) for files in chosen.pickled_files)
    elif binary.is_dir():
        train, test = (_read(chosen, binary, files, _binary) for files in chosen.binary_files)
    else:
        raise DataError(
            f"{name}: expected {pickled} or {binary}, got neither; unpack the archive there, for example "
            f"with torchvision.datasets.{name.upper()}(ROOT, download=True), or name another folder with "
            "--data.root or ADDERTRAIN_DATA"
        )
    facts = facts_of(name)
    return ImageData(train=train, test=test, mean=facts.mean, std=facts.std, num_classes=facts.num_classes)


def _read(chosen: _Set, folder: Path, files: tuple[str, ...], read_file: Any) -> ImageArrays:
    parts = [read_file(chosen, folder / file) for file in files]
    pixels = np.concatenate([part[0] for part in parts])
    labels = torch.from_numpy(np.concatenate([part[1] for part in parts]))
    images = torch.from_numpy(pixels).view(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
    return ImageArrays(images.contiguous(memory_format=torch.channels_last), labels)


def _pickled(chosen: _Set, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        batch = read_pickle(path.read_bytes())
    except (OSError, UnsafePickle) as error:
        raise _damaged(chosen, path, "a pickled batch of arrays", error) from None
    if not isinstance(batch, dict) or not {"data", chosen.labels_key} <= batch.keys():
        raise _damaged(chosen, path, f"'data' and '{chosen.labels_key}'", "something else")
    return _checked(chosen, path, batch["data"], np.asarray(batch[chosen.labels_key]))


def _binary(chosen: _Set, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    record_bytes = chosen.label_bytes + _IMAGE_BYTES
    try:
        content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise _damaged(chosen, path, "a file of binary records", error) from None
    if len(content) % record_bytes:
        raise _damaged(chosen, path, f"records of {record_bytes} bytes", f"{len(content)} bytes")
    records = content.reshape(-1, record_bytes)
    return _checked(chosen, path, records[:, chosen.label_bytes :], records[:, chosen.label_bytes - 1])


def _checked(
    chosen: _Set, path: Path, pixels: Any, labels: NDArray[Any]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (N, 3072) and labels (N,) after their shapes and values have been checked."""
    is_array = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8
    if not is_array or pixels.ndim != 2 or pixels.shape[1] != _IMAGE_BYTES or not len(pixels):
        got = f"{getattr(pixels, 'dtype', type(pixels))} of shape {getattr(pixels, 'shape', None)}"
        raise _damaged(chosen, path, f"bytes of shape (images, {_IMAGE_BYTES})", got)
    if labels.shape != (len(pixels),) or labels.dtype.kind not in "iu":
        raise _damaged(chosen, path, f"{len(pixels)} labels", f"{labels.dtype} of shape {labels.shape}")
    num_classes = facts_of(chosen.name).num_classes
    if labels.min() < 0 or labels.max() >= num_classes:
        wrong = labels.max() if labels.max() >= num_classes else labels.min()
        raise _damaged(chosen, path, f"labels from 0 to {num_classes - 1}", f"{wrong}")
    return np.ascontiguousarray(pixels), labels.astype(np.int64)


def _damaged(chosen: _Set, path: Path, expected: str, got: object) -> DataError:
    if isinstance(got, OSError):
        got = got.strerror or type(got).__name__
    return DataError(f"{chosen.name}: expected {expected} in {path}, got {got}; unpack the archive again")
