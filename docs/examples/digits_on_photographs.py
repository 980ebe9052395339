"""Images whose boxes and masks are known by construction: MNIST's digits, pasted on photographs.

Digits and photographs are real; the composition is not, and labels nobody had to draw. An image holds one to
three digits of random colour and size, at random places where they do not overlap. The k-th image of a set is
always the same.

    ROOT/MNIST/raw/*-ubyte                     digits, as torchvision stores them
    ROOT/imagenette/**/*.JPEG                  photographs: any folder of JPEG files will do
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sklearn.datasets
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import MNIST

DIGITS = (0, 1, 4, 7)
"""Four of ten, so that a training of some minutes tells them apart; DIGITS[c - 1] is class c."""
NUM_CLASSES = 1 + len(DIGITS)
"""Class 0 is the background."""
Sample = tuple[Tensor, dict[str, Tensor]]


class DigitsOnPhotographs(Dataset[Sample]):
    """Images float32 [3, S, S] from 0 to 1, and what torchvision's detectors expect of n objects.

    The target holds `boxes` [n, 4] (x0, y0, x1, y1, in pixels), `labels` int64 [n] from 1 on and `masks`
    uint8 [n, S, S]. A digit's mask is where its ink covers more than half of the pixel.

    Args:
        digits: uint8 [D, H, W], bright on dark, and their `values` [D]; those of `DIGITS` are used.
        photographs: files of any format that Pillow reads.
        seed: of the composition; sets with other seeds hold other images.
    """

    def __init__(
        self,
        digits: NDArray[np.uint8],
        values: NDArray[np.int64],
        photographs: Sequence[Path],
        *,
        count: int,
        size: int,
        seed: int,
    ) -> None:
        is_used = np.isin(values, DIGITS)
        self.digits, self.classes = digits[is_used], 1 + np.searchsorted(DIGITS, values[is_used])
        self.photographs = photographs
        self.count, self.size, self.seed = count, size, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"expected an index below {self.count}, got {index}")
        rng = np.random.default_rng((self.seed, index))
        path = self.photographs[rng.integers(len(self.photographs))]
        pixels = _random_square(path, self.size, rng)
        labels, masks = [], []
        for place in _places(self.size, int(rng.integers(1, 4)), rng):
            which = rng.integers(len(self.digits))
            ink = _resized(self.digits[which], place[2])
            region = np.s_[place[1] : place[1] + place[2], place[0] : place[0] + place[2]]
            pixels[region] += ink[..., None] * (_contrasting(pixels[region], rng) - pixels[region])
            mask = np.zeros((self.size, self.size), bool)
            mask[region] = ink > 0.5
            labels.append(int(self.classes[which]))
            masks.append(mask)
        stacked = torch.from_numpy(np.stack(masks))
        target = {
            "boxes": _boxes(stacked),
            "labels": torch.tensor(labels),
            "masks": stacked.to(torch.uint8),
        }
        return torch.from_numpy(pixels / 255).permute(2, 0, 1).contiguous().float(), target


def class_map(target: dict[str, Tensor]) -> Tensor:
    """The class of every pixel, int64 [S, S]: what a segmentation network is trained with."""
    return (target["masks"] * target["labels"].view(-1, 1, 1)).amax(0).long()


def load_digits_on_photographs(
    root: Path, *, num_train: int, num_test: int, size: int
) -> tuple[DigitsOnPhotographs, DigitsOnPhotographs]:
    """Training and test images below `root`, which share neither digits nor photographs.

    Raises:
        FileNotFoundError: if there are no photographs; torchvision downloads MNIST where it is missing.
    """
    photographs = sorted((root / "imagenette").rglob("*.JPEG"))
    if len(photographs) < 5:
        raise FileNotFoundError(
            f"expected photographs, *.JPEG, in {root / 'imagenette'}, got {len(photographs)}; "
            "unpack Imagenette or any other photographs there"
        )
    parts = []
    for training, count in ((True, num_train), (False, num_test)):
        mnist = MNIST(root, train=training, download=True)
        files = [path for place, path in enumerate(photographs) if (place % 5 > 0) == training]
        parts.append(
            DigitsOnPhotographs(
                mnist.data.numpy(), mnist.targets.numpy(), files, count=count, size=size, seed=int(training)
            )
        )
    return parts[0], parts[1]


def for_pictures(root: Path, *, count: int, size: int) -> DigitsOnPhotographs:
    """MNIST's test digits on the two photographs that scikit-learn brings along (CC BY 2.0), to be shown."""
    mnist = MNIST(root, train=False)
    files = sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))
    return DigitsOnPhotographs(
        mnist.data.numpy(), mnist.targets.numpy(), files, count=count, size=size, seed=2
    )


def _random_square(path: Path, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A random square of the photograph, at least half as long as its short side: [size, size, 3]."""
    with Image.open(path) as photograph:
        photograph.draft("RGB", (2 * size, 2 * size))
        short = min(photograph.size)
        side = int(rng.integers((short + 1) // 2, short + 1))
        left, top = (int(rng.integers(length - side + 1)) for length in photograph.size)
        box = (left, top, left + side, top + side)
        square = photograph.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(square).astype(np.float64)


def _places(size: int, count: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """(left, top, side) of up to `count` squares that do not overlap, a third to half of the image wide."""
    places: list[tuple[int, int, int]] = []
    for _ in range(20):
        side = int(rng.integers(size // 3, size // 2 + 1))
        left, top = (int(value) for value in rng.integers(0, size - side + 1, 2))
        if all(left >= x + s or x >= left + side or top >= y + s or y >= top + side for x, y, s in places):
            places.append((left, top, side))
        if len(places) == count:
            break
    return places


def _contrasting(region: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A random color that differs from the region's mean."""
    mean = region.mean((0, 1))
    while True:
        color = rng.uniform(0, 255, 3)
        if np.linalg.norm(color - mean) > 150:
            return color


def _resized(digit: NDArray[np.uint8], side: int) -> NDArray[np.float64]:
    """How much of each pixel ink covers, from 0 to 1: [side, side]."""
    resized = Image.fromarray(digit).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(resized).astype(np.float64) / 255


def _boxes(masks: Tensor) -> Tensor:
    """The smallest boxes around masks [n, S, S]: [n, 4]."""
    boxes = []
    for mask in masks:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return torch.tensor(boxes, dtype=torch.float32)
