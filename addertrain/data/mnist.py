"""MNIST in torchvision's layout: ROOT/MNIST/raw/*-ubyte (LeCun, Cortes, Burges)."""

import fcntl
import math
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torchvision.datasets import MNIST

from addertrain.data.arrays import ImageArrays, ImageData
from addertrain.data.errors import DataError
from addertrain.data.facts import FACTS
from addertrain.data.resize import resize_bilinear

IMAGE_SIZE = 32
_FILES = {
    "train-images-idx3-ubyte": 3,
    "train-labels-idx1-ubyte": 1,
    "t10k-images-idx3-ubyte": 3,
    "t10k-labels-idx1-ubyte": 1,
}
_FACTS = FACTS["mnist"]
_NUM_CLASSES = _FACTS.num_classes
_CONNECT_SECONDS = 20


def load_mnist_data(root: Path) -> ImageData:
    """60 000 images to train on and 10 000 to test on, resized to 32x32; missing ones are downloaded.

    Raises:
        DataError: no files and no download, or a damaged file.
    """
    raw = root / "MNIST" / "raw"
    if _missing(raw):
        _download(root, raw)
    for file, num_dimensions in _FILES.items():
        _check_idx(raw / file, num_dimensions)
    return ImageData(
        train=_read(root, train=True),
        test=_read(root, train=False),
        mean=_FACTS.mean,
        std=_FACTS.std,
        num_classes=_NUM_CLASSES,
    )


def _read(root: Path, *, train: bool) -> ImageArrays:
    dataset = MNIST(str(root), train=train)
    images, labels = dataset.data, dataset.targets
    if len(images) != len(labels) or not len(images):
        raise DataError(
            f"mnist: expected as many images as labels in {dataset.raw_folder}, "
            f"got {len(images)} and {len(labels)}; delete the files to download them again"
        )
    if labels.max() >= _NUM_CLASSES:
        labels_file = Path(dataset.raw_folder) / f"{'train' if train else 't10k'}-labels-idx1-ubyte"
        raise DataError(
            f"mnist: expected labels of 0 to {_NUM_CLASSES - 1} in {labels_file}, got {labels.max()}; "
            "delete it to download it again"
        )
    return ImageArrays(resize_bilinear(images.unsqueeze(1), IMAGE_SIZE), labels.to(torch.int64))


def _missing(raw: Path) -> list[str]:
    return [file for file in _FILES if not (raw / file).is_file()]


def _download(root: Path, raw: Path) -> None:
    """Lets torchvision fetch and unpack the files; one of several ranks does it, the others wait for it."""
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
            f"mnist: expected {missing} in {raw}, got none and no download ({reason}); "
            "put them there or name another folder with --data.root or ADDERTRAIN_DATA"
        ) from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a lock on the folder itself: it ends with the process and leaves no file behind."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _connect_timeout(seconds: float) -> Iterator[None]:
    """Without it a filtered network holds torchvision's download for minutes per mirror."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _check_idx(path: Path, num_dimensions: int) -> None:
    """Compares an idx file's size with its head, which torchvision does not: it would crash or read noise."""
    head_bytes = 4 * (num_dimensions + 1)
    try:
        with path.open("rb") as file:
            head, got = file.read(head_bytes), path.stat().st_size
    except OSError as error:
        raise DataError(f"mnist: expected a readable file {path}, got: {error.strerror}; mend it") from None
    magic = bytes((0, 0, 8, num_dimensions))  # 8: unsigned bytes
    if len(head) < head_bytes or head[:4] != magic:
        raise DataError(
            f"mnist: expected an idx file in {path}, got other bytes; delete it to download it again"
        )
    sizes = struct.unpack(f">{num_dimensions}I", head[4:])
    expected = head_bytes + math.prod(sizes)
    if got != expected or sizes[1:] not in ((), (28, 28)):
        raise DataError(
            f"mnist: expected {expected} bytes (28x28 images, or labels) in {path}, "
            f"got {got} of sizes {sizes}; delete it to download it again"
        )
