"""Small composed images for tests: scikit-learn's digits on the two photographs that it brings along."""

from pathlib import Path

import sklearn.datasets

from docs.examples.digits_on_photographs import DigitsOnPhotographs


def composed(count: int, *, size: int = 64, seed: int = 0) -> DigitsOnPhotographs:
    """`count` images of `size` pixels."""
    digits = sklearn.datasets.load_digits()
    pixels = (digits.images * (255 / 16)).round().astype("uint8")
    photographs = sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))
    return DigitsOnPhotographs(pixels, digits.target, photographs, count=count, size=size, seed=seed)
