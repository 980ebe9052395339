"""The fingerprint of a data set, which tells whether two machines train on the same images."""

import hashlib

import numpy as np
import torch

from addertrain.data.types import ImageArrays, ImageData, PictureReader


def data_sha256(data: ImageData) -> str:
    """SHA-256 of the training and test data: images and labels of arrays; classes and labels of image files.

    The pixels of image files are left to the checksums of their .beton (`addertrain data verify`).
    """
    digest = hashlib.sha256()
    for part in (data.train, data.test):
        _add(digest, part)
    return digest.hexdigest()


def part_sha256(part: ImageArrays | PictureReader) -> str:
    """The same of only the training or the test images; no image file is decoded.

    It includes the checksum of the index of a .beton, or that of the names of separate files.
    """
    digest = hashlib.sha256()
    _add(digest, part)
    digest.update(str(getattr(part, "index_sha256", "")).encode())
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", part: ImageArrays | PictureReader) -> None:
    if isinstance(part, ImageArrays):
        images = part.images_nchw.permute(0, 2, 3, 1).contiguous()
        digest.update(f"{tuple(images.shape)}\n".encode())
        digest.update(images.numpy().tobytes())
        digest.update(part.labels.to(torch.int64).numpy().tobytes())
    else:
        digest.update("\n".join(part.classes).encode())
        digest.update(np.asarray(part.labels, dtype=np.int64).tobytes())
