"""MNIST in torchvision's layout: ROOT/MNIST/raw/*-ubyte (LeCun, Cortes, Burges)."""

import math
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import MNIST

from addertrain.data.file_locks import lock
from addertrain.data.sets.resize import resize_bilinear
from addertrain.data.types import ImageArrays, ImageData
from addertrain.errors import DataError
from addertrain.recipe import DataRecipe
from addertrain.recipe.data_sets import facts_of

IMAGE_SIZE = 32
_FILES = {
    "train-images-idx3-ubyte": 3,
    "train-labels-idx1-ubyte": 1,
    "t10k-images-idx3-ubyte": 3,
    "t10k-labels-idx1-ubyte": 1,
}
_FACTS = facts_of("mnist")
_NUM_CLASSES = _FACTS.num_classes
_CONNECT_SECONDS = 20


def load_mnist_data(settings: DataRecipe, root: Path) -> ImageData:
    """60 000 training and 10 000 test images, resized to 32x32; missing files are downloaded.

    Raises:
        DataError: files are missing and cannot be downloaded, or a file is damaged.
    """
    raw = root / "MNIST" / "raw"
    if _missing(raw):
        _download(root, raw)
    return ImageData(
        train=_read(raw, "train"),
        test=_read(raw, "t10k"),
        mean=_FACTS.mean,
        std=_FACTS.std,
        num_classes=_NUM_CLASSES,
    )


def _read(raw: Path, part: str) -> ImageArrays:
    """Images and labels of a split; torchvision would read those of an old MNIST/processed/ instead."""
    images = _read_idx(raw / f"{part}-images-idx3-ubyte", 3)
    labels_file = raw / f"{part}-labels-idx1-ubyte"
    labels = _read_idx(labels_file, 1)
    if len(images) != len(labels) or not len(images):
        raise DataError(
            f"mnist: expected as many images as labels in {raw}, "
            f"got {len(images)} and {len(labels)}; delete the files to download them again"
        )
    if labels.max() >= _NUM_CLASSES:
        raise DataError(
            f"mnist: expected labels from 0 to {_NUM_CLASSES - 1} in {labels_file}, got {labels.max()}; "
            "delete it to download it again"
        )
    return ImageArrays(resize_bilinear(images.unsqueeze(1), IMAGE_SIZE), labels.to(torch.int64))


def _missing(raw: Path) -> list[str]:
    return [file for file in _FILES if not (raw / file).is_file()]


def _download(root: Path, raw: Path) -> None:
    """Lets torchvision download and unpack the files; one of several ranks does it while the others wait."""
    missing = ", ".join(_missing(raw))
    try:
        raw.mkdir(parents=True, exist_ok=True)
        with _locked(raw), _connect_timeout(_CONNECT_SECONDS):
            if _missing(raw):
                MNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        # torchvision lists every mirror's complaint, a line each; the last one tells enough.
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise DataError(
            f"mnist: expected {missing} in {raw}, got none, and they could not be downloaded ({reason}); "
            "put them there, or name another folder with --data.root or ADDERTRAIN_DATA"
        ) from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a lock on the folder itself, which ends with the process and leaves no file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Without locks on the file system several ranks download, each whole files of the same bytes.
        lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _connect_timeout(seconds: float) -> Iterator[None]:
    """A timeout for connections, without which a filtered network delays torchvision's download for
    minutes per mirror.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read_idx(path: Path, num_dimensions: int) -> Tensor:
    """The bytes of an idx file, uint8, after its size has been compared with its header."""
    head_bytes = 4 * (num_dimensions + 1)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"mnist: expected a readable file {path}, got: {error.strerror}; delete it to download it again"
        ) from None
    magic = bytes((0, 0, 8, num_dimensions))  # 8: unsigned bytes
    if len(content) < head_bytes or content[:4] != magic:
        raise DataError(
            f"mnist: expected an idx file in {path}, got other bytes; delete it to download it again"
        )
    sizes = struct.unpack_from(f">{num_dimensions}I", content, 4)
    expected = head_bytes + math.prod(sizes)
    if len(content) != expected or sizes[1:] not in ((), (28, 28)):
        raise DataError(
            f"mnist: expected {expected} bytes (28x28 images, or labels) in {path}, "
            f"got {len(content)} of sizes {sizes}; delete it to download it again"
        )
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=head_bytes).reshape(sizes).copy())
