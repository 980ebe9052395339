"""Any torchvision data set of images and labels, by the name of its class."""

import functools
import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torchvision.datasets
from numpy.typing import NDArray
from torchvision.datasets import VisionDataset

from addertrain.data.decoding.modes import AS_IT_IS, Decoded, Rendering, to_rgb
from addertrain.data.decoding.picture import read_picture
from addertrain.data.sources.source import check_labels
from addertrain.errors import DataError, PictureError

WHOLE = "all"
"""The split of a set that has no parts."""


@dataclass(frozen=True, eq=False)
class TorchvisionPictures:
    """Some images of a data set; the set itself is opened again in every process that reads it."""

    set_name: str
    root: str
    split: str
    samples: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    rendering: Rendering = AS_IT_IS
    remarks: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """A description of the source, for the side file."""
        return f"torchvision {self.set_name}, {self.split}"

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, sample: int) -> str:
        """The image's number in the set."""
        return f"{self.set_name} {self.split} {self.samples[sample]}"

    def picture(self, sample: int) -> Decoded:
        """The image in RGB; raises a PictureError that names it."""
        try:
            found, _ = _open(self.set_name, self.root, self.split)[int(self.samples[sample])]
            path = _path_of(found)
            return to_rgb(found, self.rendering) if path is None else read_picture(path, self.rendering)
        except PictureError as error:
            raise PictureError(self.name(sample), error.reason) from None
        except Exception as error:  # sets and decoders raise whatever a damaged file leads them to
            ours = str(error).startswith("expected ")
            reason = str(error) if ours else f"expected an image, got: {error!r}"
            raise PictureError(self.name(sample), reason) from None

    def size(self, sample: int) -> tuple[int, int] | None:
        """None, because a set does not know an image's size without decoding it."""

    def encoded(self, sample: int) -> bytes | None:
        """The bytes of the file; None for a set that makes its images from arrays."""
        found, _ = _open(self.set_name, self.root, self.split)[int(self.samples[sample])]
        path = _path_of(found)
        return None if path is None else path.read_bytes()

    def some(self, samples: Sequence[int]) -> "TorchvisionPictures":
        """A source of only these images."""
        chosen = list(samples)
        return replace(self, samples=self.samples[chosen], labels=self.labels[chosen], remarks=())


def _path_of(found: Any) -> Path | None:
    """The file of an item of a set: a path from our loader, or an image that the set has opened itself."""
    name = found if isinstance(found, Path) else getattr(found, "filename", None)
    return Path(name) if name else None


def torchvision_pictures(
    set_name: str, root: Path, split: str, *, rendering: Rendering = AS_IT_IS
) -> TorchvisionPictures:
    """The images of `torchvision.datasets.SET_NAME` in `root`; nothing is downloaded. `split` is `train` or
    `test`, or one of the set's own names if it has other splits, NAME/train or NAME/test for EMNIST, and
    `all` for a set without splits.

    Raises:
        DataError: there is no such set or split, files are missing, or labels are not class numbers.
    """
    dataset = _open(set_name, str(root), split)
    where = f"torchvision:{set_name} {split}"
    labels = _labels(dataset, where)
    classes = getattr(dataset, "classes", None) or [str(number) for number in range(int(labels.max()) + 1)]
    # ImageNet's classes are tuples of synonyms.
    names = tuple(name if isinstance(name, str) else ", ".join(name) for name in classes)
    check_labels(labels, len(names), where=where)
    return TorchvisionPictures(set_name, str(root), split, np.arange(len(labels)), labels, names, rendering)


@functools.cache
def _open(set_name: str, root: str, split: str) -> Any:
    kind: Any = getattr(torchvision.datasets, set_name, None)
    if not _is_set(kind):
        raise DataError(
            f"torchvision:{set_name}: expected the name of a class of torchvision.datasets, got another; "
            "write it as torchvision does, such as CIFAR10"
        )
    arguments = _arguments(set_name, kind, split)
    if "loader" in inspect.signature(kind).parameters or issubclass(kind, torchvision.datasets.ImageFolder):
        arguments["loader"] = (
            Path  # torchvision's own drops transparency and clips what is deeper than 8 bits
        )
    processed = os.path.join(root, set_name, "processed")
    if issubclass(kind, torchvision.datasets.MNIST) and os.path.isdir(processed) and os.listdir(processed):
        raise DataError(
            f"torchvision:{set_name}: expected only {os.path.join(root, set_name, 'raw')}, got {processed} "
            "as well, which torchvision 0.10 or older wrote and which would be read instead; remove it"
        )
    try:
        return kind(root, **arguments)
    except Exception as error:  # sets raise whatever a missing or damaged file leads them to
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"torchvision:{set_name}: expected its files in {root} and a split '{split}', got: {reason}; "
            "download it there with torchvision, or name another split"
        ) from None


def _arguments(set_name: str, kind: Any, split: str) -> dict[str, Any]:
    """The arguments that choose a split; each set checks its own names, but accepts any for `train=False`."""
    parameters = inspect.signature(kind).parameters
    part, arguments, words = split, {}, "train or test"
    if set_name == "EMNIST":  # its parts have two coordinates, and `train` hides in its other arguments
        word, _, part = split.partition("/")
        arguments, words = {"split": word}, f"{word or 'letters'}/train or {word or 'letters'}/test"
    elif "split" in parameters:
        return {"split": split}
    elif "train" not in parameters:
        if split == WHOLE:
            return {}
        raise DataError(
            f"torchvision:{set_name}: expected --split {WHOLE}, because this set has no splits, got '{split}'"
        )
    if part not in ("train", "test"):
        raise DataError(f"torchvision:{set_name}: expected --split {words}, got '{split}'")
    return {**arguments, "train": part == "train"}


def _is_set(kind: object) -> bool:
    return (
        inspect.isclass(kind)
        and issubclass(kind, VisionDataset)
        and "root" in inspect.signature(kind).parameters
        and kind is not VisionDataset
    )


def _labels(dataset: Any, where: str) -> NDArray[np.int64]:
    """The labels, one integer per image."""
    for attribute in ("targets", "labels", "_labels", "y"):
        if (found := getattr(dataset, attribute, None)) is not None:
            break
    else:
        raise DataError(
            f"{where}: expected a data set with one label per image, got another; choose a classification "
            "data set"
        )
    labels = np.asarray(found)
    if isinstance(dataset, torchvision.datasets.QMNIST) and labels.ndim == 2:
        labels = labels[:, 0]  # the digit; the others tell who wrote it
    if labels.shape != (len(dataset),) or labels.dtype.kind not in "iu" or not len(labels):
        raise DataError(
            f"{where}: expected one whole number per image as its label, got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    return labels.astype(np.int64)
