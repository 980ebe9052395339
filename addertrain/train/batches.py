"""The batches that `AdderClassifier` accepts: this package's own, a pair, or a dict; others are refused.

A loader of `addertrain.data` yields objects with `images` and `labels`; torch's DataLoader turns a data set
of pairs into lists, and many data sets yield dicts. All of them are converted to one type before they are
moved to the device, so that steps and callbacks only read `batch.images` and `batch.labels`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

_IMAGE_KEYS = ("images", "image")
_LABEL_KEYS = ("labels", "label")
_SUM_TOLERANCE = 0.01
"""Probabilities may come in bfloat16, whose 1 is off by 1/256."""


class LabelledImages(Protocol):
    """A batch, as every loader of `addertrain.data` yields it."""

    @property
    def images(self) -> Tensor:
        """uint8 [N, C, H, W]."""

    @property
    def labels(self) -> Tensor:
        """int64 [N]; in training also float [N, classes], the mixtures of mixup and cutmix."""


class ImagesAndLabels(NamedTuple):
    """A pair or a dict as `LabelledImages`."""

    images: Tensor
    labels: Tensor


def labelled_images(batch: Any) -> LabelledImages:
    """`batch` as an object with images [N, C, H, W] and labels [N] or [N, classes].

    Args:
        batch: such an object, a pair (images, labels), or a mapping with the keys images and labels, or image
            and label.

    Raises:
        TypeError: it is none of these, or its members are not such tensors.
        ValueError: images or labels have another number of dimensions, their numbers differ, or labels on
            CPUs are below 0 or are not probabilities.
    """
    found = _labelled(batch)
    _check(found.images, found.labels)
    if found.labels.is_floating_point() or found.labels.dtype == torch.int64:
        return found
    return ImagesAndLabels(found.images, found.labels.long())


def unlabelled_images(batch: Any) -> Tensor:
    """The images of a batch whose labels are not used, as in `Trainer.predict`.

    Raises:
        TypeError: there are no images.
    """
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, Mapping):
        images = _first_of(batch, _IMAGE_KEYS)
    elif hasattr(batch, "images"):
        images = batch.images
    else:
        images = batch[0] if isinstance(batch, Sequence) and batch else None
    if not isinstance(images, Tensor):
        raise TypeError(
            f"AdderClassifier: expected images, got {_described(batch)} as a batch to predict; let the data "
            "set return a tensor, or images as the first of several values"
        )
    return images


def _labelled(batch: Any) -> LabelledImages:
    if hasattr(batch, "images") and hasattr(batch, "labels"):
        found: LabelledImages = batch
        return found
    if isinstance(batch, Mapping):
        images, labels = _first_of(batch, _IMAGE_KEYS), _first_of(batch, _LABEL_KEYS)
        if images is not None and labels is not None:
            return ImagesAndLabels(images, labels)
    elif isinstance(batch, Sequence) and len(batch) == 2:
        return ImagesAndLabels(batch[0], batch[1])
    raise TypeError(
        "AdderClassifier: expected a batch (images, labels), a dict with the keys images and labels, or an "
        f"object with these attributes, got {_described(batch)}; let the data set or collate_fn return one "
        "of these"
    )


def _check(images: Any, labels: Any) -> None:
    for name, value in (("images", images), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"AdderClassifier: expected a tensor of {name}, got {type(value).__name__}; add a transform "
                "to tensors to the data set, such as torchvision.transforms.v2.PILToTensor()"
            )
    if images.dim() != 4:
        raise ValueError(
            f"AdderClassifier: expected images [N, C, H, W], got shape {tuple(images.shape)}; let the loader "
            "make batches of images of one size"
        )
    is_mixture = labels.is_floating_point()
    if labels.dtype == torch.bool or labels.is_complex() or labels.dim() != (2 if is_mixture else 1):
        raise ValueError(
            "AdderClassifier: expected labels as integers [N], or as float probabilities [N, classes], got "
            f"{labels.dtype} of shape {tuple(labels.shape)}; convert them in the data set"
        )
    if len(labels) != len(images):
        raise ValueError(
            f"AdderClassifier: expected a label for each image, got {len(images)} images and {len(labels)} "
            "labels; check the collate_fn"
        )
    if labels.device.type == "cpu":  # to look at values on a GPU would make every step wait
        _check_values(labels)


def _check_values(labels: Tensor) -> None:
    if labels.is_floating_point():
        # What is not finite passes: it is the guard's business, which knows what a run does then.
        finite = labels[labels.isfinite().all(1)].double()
        sums = finite.sum(1)
        if bool((finite < 0).any()) or bool(((sums - 1).abs() > _SUM_TOLERANCE).any()):
            raise ValueError(
                "AdderClassifier: expected float labels to be probabilities of 0 or above whose sum is 1 "
                f"for each image, got values down to {finite.min():.3g} and sums up to {sums.max():.3g}; "
                "normalise them by softmax, or give integer labels"
            )
    elif len(labels) and (smallest := int(labels.min())) < 0:
        raise ValueError(
            f"AdderClassifier: expected labels of 0 or above, got {smallest}; count classes from 0"
        )


def _first_of(batch: Mapping[Any, Any], keys: Sequence[str]) -> Any:
    return next((batch[key] for key in keys if key in batch), None)


def _described(batch: Any) -> str:
    kind = type(batch).__name__
    if isinstance(batch, Mapping):
        return f"a {kind} with the keys {', '.join(map(str, batch)) or 'none'}"
    return f"a {kind} of {len(batch)}" if isinstance(batch, Sequence) else f"a {kind}"
