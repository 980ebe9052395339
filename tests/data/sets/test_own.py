"""Data sets of a user's own: what a function may return, and what is said of everything else."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from addertrain.data import DataError, ImageArrays, build_loader, data_sha256, load_data
from addertrain.errors import RecipeError
from addertrain.recipe import DataRecipe

RGB = {"mean": (0.5,) * 3, "std": (0.2,) * 3, "num_classes": 2}


def _images(count: int = 6, channels: int = 3) -> NDArray[np.uint8]:
    return np.arange(count * channels * 4 * 5, dtype=np.uint8).reshape(count, channels, 4, 5)


def arrays(*, root: Path, count: int = 6) -> SimpleNamespace:
    labels = np.arange(count) % 2
    return SimpleNamespace(
        train=(_images(count), labels), test=(torch.from_numpy(_images()), labels[:6]), **RGB
    )


class Pictures:
    """Of two sizes; the third one cannot be read."""

    classes = ("wide", "tall")
    labels = (0, 1, 0)

    def __len__(self) -> int:
        return 3

    def picture(self, sample: int) -> NDArray[np.uint8]:
        if sample == 2:
            raise OSError("no such page")
        return np.full((40, 60, 3) if sample == 0 else (60, 40, 3), 100 + sample, dtype=np.uint8)


def pictures(*, root: Path) -> SimpleNamespace:
    return SimpleNamespace(train=Pictures(), test=Pictures(), **RGB)


def given(*, root: Path, **attributes: Any) -> SimpleNamespace:
    """A good set but for these attributes."""
    good = vars(arrays(root=root)) | {name: _REPLACED[value] for name, value in attributes.items()}
    return SimpleNamespace(**{name: value for name, value in good.items() if value is not None})


_GOOD = (_images(), np.arange(6) % 2)
_REPLACED: dict[str, Any] = {
    "nothing": None,
    "floats": (_images().astype(np.float32), _GOOD[1]),
    "grey": (_images(channels=1), _GOOD[1]),
    "too few labels": (_images(), _GOOD[1][:5]),
    "a label too high": (_images(), np.arange(6)),
    "float labels": (_images(), np.zeros(6)),
    "a word": "train",
    "pictures": Pictures(),
    "255": (255.0,) * 3,
    "two": (0.5, 0.5),
}


def settings(function: str, **keys: Any) -> DataRecipe:
    return DataRecipe(name=f"{__name__}:{function}", global_batch_size=2, **keys)


def test_arrays_become_a_data_set_of_ours() -> None:
    data = load_data(settings("arrays", args={"count": 8}))

    assert isinstance(data.train, ImageArrays)
    assert (len(data.train), len(data.test), data.num_classes) == (8, 6, 2)
    assert data.train.images_nchw.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(data.train.images_nchw, torch.from_numpy(_images(8)))
    assert data.train.labels.dtype == torch.int64
    assert data_sha256(data) == data_sha256(load_data(settings("arrays", args={"count": 8})))
    assert data_sha256(data) != data_sha256(load_data(settings("arrays")))


def test_pictures_are_cut_by_the_loader_and_name_what_cannot_be_read() -> None:
    recipe = settings("pictures", loader="torchvision", image_size=32, augmentation="resized_crop_flip")
    data = load_data(recipe)
    loader = build_loader(data, recipe, training=False, seed=0)
    batches = iter(loader)

    first = next(batches)

    assert first.images.shape == (2, 3, 32, 32)
    assert first.images[:, 0, 0, 0].tolist() == [100, 101]
    assert first.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="test: image 2: expected pixels, got OSError: no such page"):
        next(batches)
    loader.close()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"num_classes": "nothing"}, "expected num_classes of its result, got a SimpleNamespace without it"),
        ({"train": "floats"}, r"images of train as uint8 .* C = 3, the channels of mean, got float32 \[6, 3"),
        ({"test": "grey"}, r"images of test as uint8 .*, got uint8 \[6, 1, 4, 5\]"),
        ({"train": "too few labels"}, r"a label for each of 6 images of train, got \[5\]"),
        ({"train": "a label too high"}, "labels of train from 0 to num_classes - 1 = 1, got 5"),
        ({"test": "float labels"}, r"integer labels \[N\] of test, got torch.float64"),
        ({"train": "a word"}, "train as a pair of images and labels, or an object with .*, got str"),
        ({"test": "pictures"}, "train and test both as arrays or both as image files, got one of each"),
        ({"mean": "255"}, r"mean per channel, of pixels scaled to 0 \.\. 1, got \(255"),
        ({"std": "two"}, "mean and std of as many channels, got 3 and 2"),
    ],
)
def test_other_results_are_one_line(attributes: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_data(settings("given", args=attributes))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "keys", "message"),
    [
        ("arrays", {"loader": "ffcv"}, "data.loader: expected memory for arrays, .* got 'ffcv'; change it"),
        ("arrays", {"augmentation": "resized_crop_flip"}, "expected none or crop_flip for arrays"),
        ("pictures", {}, "data.loader: expected torchvision or ffcv for pictures"),
        ("arrays", {"root": "nowhere-at-all"}, "expected a folder nowhere-at-all"),
    ],
)
def test_what_does_not_go_with_the_recipe_is_one_line(
    function: str, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_data(settings(function, **keys))


def test_an_argument_that_is_not_taken_is_found_before_the_function_runs() -> None:
    with pytest.raises(RecipeError, match=r"data\.args\.cuont: .* did you mean count\?"):
        load_data(settings("arrays", args={"cuont": 3}))
