"""Small sets of random images in CIFAR's file layouts."""

import pickle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


def write_cifar10(root: Path, layout: str = "pickled", *, seed: int = 0) -> tuple[Images, Labels]:
    """Five batches of 10 images and a test batch of 10; returns all images as (60, 3072) and their labels."""
    images, labels = _random(60, 10, seed)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for index, name in enumerate(names):
        part = slice(10 * index, 10 * (index + 1))
        if layout == "pickled":
            batch = {"data": images[part], "labels": labels[part].tolist(), "batch_label": name}
            _write(root / "cifar-10-batches-py" / name, pickle.dumps(batch, protocol=2))
        else:
            records = np.concatenate([labels[part, None].astype(np.uint8), images[part]], axis=1)
            _write(root / "cifar-10-batches-bin" / f"{name}.bin", records.tobytes())
    return images, labels


def write_cifar100(root: Path, layout: str = "pickled", *, seed: int = 0) -> tuple[Images, Labels]:
    """40 images to train on and 20 to test on; returns all images as (60, 3072) and their fine labels."""
    images, labels = _random(60, 100, seed)
    for name, part in (("train", slice(0, 40)), ("test", slice(40, 60))):
        coarse = labels[part] // 5
        if layout == "pickled":
            batch = {
                "data": images[part],
                "fine_labels": labels[part].tolist(),
                "coarse_labels": coarse.tolist(),
            }
            _write(root / "cifar-100-python" / name, pickle.dumps(batch, protocol=2))
        else:
            both = np.stack([coarse, labels[part]], axis=1).astype(np.uint8)
            _write(
                root / "cifar-100-binary" / f"{name}.bin",
                np.concatenate([both, images[part]], axis=1).tobytes(),
            )
    return images, labels


def _random(num_images: int, num_classes: int, seed: int) -> tuple[Images, Labels]:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (num_images, 3072), dtype=np.uint8)
    return images, random.integers(0, num_classes, num_images)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
