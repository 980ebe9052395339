"""scikit-learn's bundled handwritten digits: 1797 real 8x8 images, no download (Alpaydin, Kaynak 1998)."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from addertrain.data.randomness import Stream, draw
from addertrain.data.sets.resize import resize_bilinear
from addertrain.data.types import ImageArrays, ImageData
from addertrain.recipe import DataRecipe
from addertrain.recipe.data_sets import facts_of

IMAGE_SIZE = 32
_LARGEST_VALUE = 16  # scikit-learn's pixels are 0 .. 16
_HELD_OUT_ONE_IN = 5
_FACTS = facts_of("digits")


def load_digits_data(settings: DataRecipe, root: Path) -> ImageData:
    """1437 training and 360 held-out images, stratified by class; the split never changes.

    They come with scikit-learn, so neither settings nor root are used.
    """
    # Here and nowhere else: scikit-learn takes a second to import, and other data sets do without it.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).mul(255 / _LARGEST_VALUE).round().to(torch.uint8)
    images_nchw = resize_bilinear(images.unsqueeze(1), IMAGE_SIZE)
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    train, test = (torch.from_numpy(part) for part in stratified_split(labels.numpy()))
    return ImageData(
        train=ImageArrays(images_nchw[train], labels[train]),
        test=ImageArrays(images_nchw[test], labels[test]),
        mean=_FACTS.mean,
        std=_FACTS.std,
        num_classes=_FACTS.num_classes,
    )


def stratified_split(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The training and the held-out indices: every fifth is held out, sorted by class and by a draw of
    seed 0.
    """
    draws = draw(0, 0, np.arange(len(labels)), Stream.SPLIT)
    by_class = np.lexsort((draws, labels))
    is_held_out = np.zeros(len(labels), dtype=bool)
    is_held_out[by_class[::_HELD_OUT_ONE_IN]] = True
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
