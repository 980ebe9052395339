from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from addertrain.train.batches import labelled_images, unlabelled_images


class _Own(NamedTuple):
    images: Tensor
    labels: Tensor
    paths: list[str]


def _images(count: int = 2) -> Tensor:
    return torch.zeros(count, 3, 4, 4, dtype=torch.uint8)


def _labels(count: int = 2) -> Tensor:
    return torch.arange(count)


@pytest.mark.parametrize(
    "batch",
    [
        _Own(_images(), _labels(), ["a", "b"]),
        [_images(), _labels()],
        (_images(), _labels()),
        {"images": _images(), "labels": _labels()},
        {"image": _images(), "label": _labels(), "path": ["a", "b"]},
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_every_common_kind_of_batch_is_taken(batch: Any) -> None:
    taken = labelled_images(batch)

    assert torch.equal(taken.images, _images())
    assert torch.equal(taken.labels, _labels())
    assert torch.equal(unlabelled_images(batch), _images())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32], ids=str)
def test_whole_numbers_of_any_width_are_labels(dtype: torch.dtype) -> None:
    taken = labelled_images((_images(), _labels().to(dtype)))

    assert taken.labels.dtype == torch.int64
    assert torch.equal(taken.labels, _labels())


def test_mixtures_of_labels_are_taken_as_they_are() -> None:
    mixtures = torch.full((2, 5), 0.2)

    assert labelled_images((_images(), mixtures)).labels is mixtures


def test_probabilities_that_are_not_finite_are_left_to_the_guard() -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        mixtures = torch.tensor([[value, 0.0], [0.5, 0.5]])
        assert labelled_images((_images(), mixtures)).labels is mixtures


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_mixtures_may_be_rounded_to_sixteen_bits(dtype: torch.dtype) -> None:
    mixtures = torch.rand(64, 1000, generator=torch.Generator().manual_seed(0)).mul(9).softmax(1).to(dtype)

    assert labelled_images((_images(64), mixtures)).labels is mixtures


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (_images, "got a Tensor"),
        (lambda: [_images()], "got a list of 1"),
        (lambda: (_images(), _labels(), ["a", "b"]), "got a tuple of 3"),
        (lambda: {"pixels": _images(), "y": _labels()}, "got a dict with the keys pixels, y"),
        (lambda: ([1, 2], _labels()), "expected a tensor of images, got list"),
        (lambda: (_images(), [0, 1]), "expected a tensor of labels, got list"),
    ],
)
def test_what_is_no_batch_is_named(batch: Callable[[], Any], words: str) -> None:
    with pytest.raises(TypeError, match="AdderClassifier: expected") as error:
        labelled_images(batch())

    assert words in str(error.value)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (_images()[0], _labels(), r"expected images \[N, C, H, W\]"),
        (_images(), _labels(3), "got 2 images and 3 labels"),
        (_images(), torch.zeros(2, 1, dtype=torch.int64), "expected labels as integers"),
        (_images(), torch.zeros(2), "expected labels as integers"),
        (_images(), torch.zeros(2, dtype=torch.bool), "expected labels as integers"),
        (_images(), _labels() - 1, "expected labels of 0 or above, got -1"),
        (_images(), torch.ones(2, 5), "whose sum is 1 for each image, got values down to 1 and sums up to 5"),
        (_images(), torch.tensor([[2.0, -1.0]] * 2), "got values down to -1"),
    ],
)
def test_shapes_and_labels_that_do_not_fit_are_refused(images: Tensor, labels: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        labelled_images((images, labels))


def test_a_batch_without_images_cannot_be_predicted() -> None:
    with pytest.raises(TypeError, match="got a dict with the keys labels"):
        unlabelled_images({"labels": _labels()})
