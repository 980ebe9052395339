"""Pictures for tests: real ones where ADDERTRAIN_DATA holds some, otherwise waves and noise of many sizes."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from addertrain.data.beton.encode import BetonSettings

SMALL_PAGES = BetonSettings(page_size=1 << 17)  # a few pictures a page
SIZES = [(375, 500), (500, 333), (224, 224), (90, 160), (401, 397), (64, 300), (257, 31)]


def waves(number: int, height: int, width: int) -> NDArray[np.uint8]:
    """A smooth picture that no other number gives, as JPEG likes it."""
    rows, columns = np.mgrid[0:height, 0:width]
    phase = 0.7 * number
    red = np.sin(rows / (9 + number % 5) + phase)
    green = np.cos(columns / (7 + number % 3) - phase)
    blue = np.sin((rows + columns) / 13 + phase)
    return (127.5 + 127.5 * np.stack([red, green, blue], axis=2)).astype(np.uint8)


def write_folder(root: Path, *, num_classes: int, per_class: int) -> Path:
    """ROOT/class_K/N.jpg, every picture of another size or another pattern."""
    for label in range(num_classes):
        folder = root / f"class_{label}"
        folder.mkdir(parents=True)
        for k in range(per_class):
            number = label * per_class + k
            picture = Image.fromarray(waves(number, *SIZES[number % len(SIZES)]))
            picture.save(folder / f"{k:03d}.jpg", quality=92)
    return root


def picture_folder(root: Path, *, num_classes: int, per_class: int) -> Path:
    """As `write_folder`; photographs where there are some, in classes that mean nothing."""
    for name in ("imagenet-originals", "imagenette"):
        originals = real_folder(name)
        found = sorted(originals.rglob("*.JPEG"))[: num_classes * per_class] if originals else []
        if len(found) == num_classes * per_class:
            for number, path in enumerate(found):
                label, k = divmod(number, per_class)
                (root / f"class_{label}").mkdir(parents=True, exist_ok=True)
                (root / f"class_{label}" / f"{k:03d}.jpg").symlink_to(path)
            return root
    return write_folder(root, num_classes=num_classes, per_class=per_class)


def real_folder(name: str) -> Path | None:
    """A folder of real photographs below ADDERTRAIN_DATA, where it holds them."""
    folder = Path(os.environ.get("ADDERTRAIN_DATA", "")) / name
    return folder if os.environ.get("ADDERTRAIN_DATA") and folder.is_dir() else None
