"""Any torchvision data set of pictures and labels, by the name of its class."""

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torchvision.datasets
from numpy.typing import NDArray
from torchvision.datasets import VisionDataset

from addertrain.data.errors import DataError


@dataclass(frozen=True, eq=False)
class TorchvisionPictures:
    """Some pictures of a data set; the set itself is opened again in every process that reads it."""

    set_name: str
    root: str
    split: str
    samples: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    @property
    def description(self) -> str:
        """What it is, for the record."""
        return f"torchvision {self.set_name}, {self.split}"

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, sample: int) -> str:
        """The picture's number in the set."""
        return f"{self.set_name} {self.split} {self.samples[sample]}"

    def picture(self, sample: int) -> NDArray[np.uint8]:
        """The picture in RGB, (H, W, 3); raises a DataError that names it."""
        try:
            image, _ = _open(self.set_name, self.root, self.split)[int(self.samples[sample])]
            return np.array(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{self.name(sample)}: expected a picture, got: {error}") from None

    def some(self, samples: Sequence[int]) -> "TorchvisionPictures":
        """These pictures alone."""
        chosen = list(samples)
        return TorchvisionPictures(
            self.set_name, self.root, self.split, self.samples[chosen], self.labels[chosen], self.classes
        )


def torchvision_pictures(set_name: str, root: Path, split: str) -> TorchvisionPictures:
    """The pictures of `torchvision.datasets.SET_NAME` in `root`, which is not downloaded here.

    Raises:
        DataError: no such set, no such split, or no files.
    """
    dataset = _open(set_name, str(root), split)
    labels = np.asarray(_labels(dataset), dtype=np.int64)
    classes = getattr(dataset, "classes", None) or [str(number) for number in range(int(labels.max()) + 1)]
    # ImageNet's classes are tuples of synonyms.
    names = tuple(name if isinstance(name, str) else ", ".join(name) for name in classes)
    return TorchvisionPictures(set_name, str(root), split, np.arange(len(labels)), labels, names)


@functools.cache
def _open(set_name: str, root: str, split: str) -> Any:
    kind: Any = getattr(torchvision.datasets, set_name, None)
    if not _is_set(kind):
        raise DataError(
            f"torchvision:{set_name}: expected the name of a class of torchvision.datasets, such as CIFAR10"
        )
    parameters = inspect.signature(kind).parameters
    choice = {"train": split == "train"} if "train" in parameters else {"split": split}
    try:
        return kind(root, **choice)
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"torchvision:{set_name}: expected its files in {root} and a split '{split}', got: {reason}"
        ) from None


def _is_set(kind: object) -> bool:
    return inspect.isclass(kind) and issubclass(kind, VisionDataset)


def _labels(dataset: Any) -> Any:
    for attribute in ("targets", "labels", "_labels"):
        if (labels := getattr(dataset, attribute, None)) is not None:
            return labels
    raise DataError(f"torchvision:{type(dataset).__name__}: expected a set with one label a picture")
