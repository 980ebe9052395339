"""A data set of your own: checks what the function returns that `data.name` names, and adapts it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from addertrain.data.decoding.modes import Change, Decoded
from addertrain.data.types import ImageArrays, ImageData, PictureReader
from addertrain.errors import DataError, PictureError
from addertrain.recipe import DataRecipe

_PICTURES: tuple[str, ...] = ("torchvision", "ffcv")
DATA_GIVEN = ("root",)
"""The keyword arguments that the function gets besides data.args: the folder of the data sets, a Path."""


class Pictures(Protocol):
    """Labelled images of any size, read one at a time by several threads; for data.loader: torchvision."""

    labels: Sequence[int]
    classes: Sequence[str]

    def __len__(self) -> int:
        """The number of images."""

    def picture(self, sample: int) -> NDArray[np.uint8]:
        """The image in RGB, (H, W, 3)."""


class OwnData(Protocol):
    """What the function has to return.

    Attributes:
        train, test: a pair of images, uint8 [N, C, H, W], and labels [N], as tensors or arrays, for
            data.loader: memory; or `Pictures`.
        mean, std: per channel, of pixels scaled to 0 .. 1.
        num_classes: labels are 0 .. num_classes - 1.
    """

    train: Any
    test: Any
    mean: Sequence[float]
    std: Sequence[float]
    num_classes: int


class OwnDataFunction(Protocol):
    """The function that `data.name: package.module:function` names."""

    def __call__(self, *, root: Path, **arguments: Any) -> OwnData:
        """Opens the data set; `arguments` are the recipe's data.args."""


def checked_data(found: Any, settings: DataRecipe) -> ImageData:
    """What the function returned, as an `ImageData`.

    Raises:
        DataError: an attribute is missing or not as `OwnData` says, or the recipe's loader or augmentation
            does not fit the data.
    """
    missing = [name for name in ("train", "test", "mean", "std", "num_classes") if not hasattr(found, name)]
    if missing:
        raise _wrong(settings, f"{missing[0]} of its result", f"a {type(found).__name__} without it")
    mean, std = (_per_channel(settings, name, getattr(found, name)) for name in ("mean", "std"))
    if len(mean) != len(std):
        raise _wrong(settings, "mean and std of as many channels", f"{len(mean)} and {len(std)}")
    num_classes = int(found.num_classes)
    parts = {
        name: _part(settings, name, getattr(found, name), len(mean), num_classes)
        for name in ("train", "test")
    }
    _check_settings(settings, parts)
    return ImageData(train=parts["train"], test=parts["test"], mean=mean, std=std, num_classes=num_classes)


def _per_channel(settings: DataRecipe, name: str, values: Any) -> tuple[float, ...]:
    found = tuple(float(value) for value in np.atleast_1d(np.asarray(values, dtype=np.float64)))
    if not found or not all(0 <= value <= 1 for value in found) or (name == "std" and 0 in found):
        raise _wrong(settings, f"{name} per channel, of pixels scaled to 0 .. 1", str(found))
    return found


def _part(
    settings: DataRecipe, name: str, part: Any, num_channels: int, num_classes: int
) -> ImageArrays | PictureReader:
    if isinstance(part, ImageArrays):
        part = (part.images_nchw, part.labels)
    if isinstance(part, tuple | list) and len(part) == 2:
        images, labels = (torch.as_tensor(np.asarray(each)) for each in part)
        return _arrays(settings, name, images, labels, num_channels, num_classes)
    if hasattr(part, "read") and hasattr(part, "labels"):
        _check_labels(settings, name, torch.as_tensor(np.asarray(part.labels)), num_classes)
        reader: PictureReader = part
        return reader
    if not (hasattr(part, "picture") and hasattr(part, "labels") and hasattr(part, "classes")):
        expected = f"{name} as a pair of images and labels, or an object with labels, classes and picture()"
        raise _wrong(settings, expected, type(part).__name__)
    _check_labels(settings, name, torch.as_tensor(np.asarray(part.labels)), num_classes)
    # Here: torchvision takes seconds to import, and arrays do without it.
    from addertrain.data.loaders.torchvision_reader import TorchvisionReader

    return TorchvisionReader(_OwnPictures(part, f"{settings.name}, {name}"))


def _arrays(
    settings: DataRecipe, name: str, images: Tensor, labels: Tensor, num_channels: int, num_classes: int
) -> ImageArrays:
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != num_channels or not len(images):
        raise _wrong(
            settings,
            f"images of {name} as uint8 [N, C, H, W] with C = {num_channels}, the channels of mean",
            f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}",
        )
    if labels.shape != images.shape[:1]:
        raise _wrong(settings, f"a label for each of {len(images)} images of {name}", f"{list(labels.shape)}")
    _check_labels(settings, name, labels, num_classes)
    return ImageArrays(images.contiguous(memory_format=torch.channels_last), labels.to(torch.int64))


def _check_labels(settings: DataRecipe, name: str, labels: Tensor, num_classes: int) -> None:
    if labels.is_floating_point() or labels.dim() != 1 or not len(labels):
        raise _wrong(settings, f"integer labels [N] of {name}", f"{labels.dtype} {list(labels.shape)}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        got = low if low < 0 else high
        raise _wrong(settings, f"labels of {name} from 0 to num_classes - 1 = {num_classes - 1}", f"{got}")


def _check_settings(settings: DataRecipe, parts: Mapping[str, ImageArrays | PictureReader]) -> None:
    """Checks the loader and augmentation, because the recipe's own checks cannot know the kind of the
    data.
    """
    kinds = {isinstance(part, ImageArrays) for part in parts.values()}
    if len(kinds) == 2:
        raise _wrong(settings, "train and test both as arrays or both as image files", "one of each")
    what, loaders, augmentation = "pictures", _PICTURES, "resized_crop_flip"
    if kinds == {True}:
        what, loaders, augmentation = "arrays", ("memory",), "crop_flip"
    for key, value, allowed in (
        ("loader", settings.loader, loaders),
        ("augmentation", settings.augmentation, ("none", augmentation)),
    ):
        if value not in allowed:
            raise DataError(
                f"data.{key}: expected {' or '.join(allowed)} for {what}, which {settings.name} returns, got "
                f"{value!r}; change it in the recipe or with --data.{key} VALUE"
            )


class _OwnPictures:
    """`Pictures` as a source that the loaders read."""

    def __init__(self, own: Pictures, name: str) -> None:
        self._own, self._name = own, name
        self.labels = np.ascontiguousarray(own.labels, dtype=np.int64)
        self.classes = tuple(str(each) for each in own.classes)

    def __len__(self) -> int:
        return len(self._own)

    def name(self, sample: int) -> str:
        """The number of the image, because it need not be a file."""
        return f"{self._name}: image {sample}"

    def picture(self, sample: int) -> Decoded:
        """The pixels; every error names the image."""
        try:
            pixels = np.asarray(self._own.picture(sample))
        except Exception as error:
            reason = f"expected pixels, got {type(error).__name__}: {error}"
            raise PictureError(self.name(sample), reason) from error
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            got = f"{pixels.dtype} {list(pixels.shape)}"
            raise PictureError(self.name(sample), f"expected uint8 (H, W, 3), got {got}")
        return Decoded(pixels, Change(0))


def _wrong(settings: DataRecipe, expected: str, got: str) -> DataError:
    return DataError(f"data.name: {settings.name}: expected {expected}, got {got}; see docs/extending.md")
