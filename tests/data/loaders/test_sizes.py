"""Sizes by epoch and threads by rank."""

import os

import pytest

from addertrain.data.loaders.sizes import decode_threads, evaluation_size, training_size
from addertrain.recipe import DataRecipe, RecipeError, load_recipe
from tests.source_tree import ROOT


def settings(**values: object) -> DataRecipe:
    return DataRecipe(**({"name": "imagenet", "loader": "ffcv", "global_batch_size": 256} | values))


def test_images_grow_in_steps_of_32_and_then_stay() -> None:
    growing = settings(image_size=192, first_image_size=128, grow_from=2, grow_until=10)
    assert [training_size(growing, epoch) for epoch in (0, 2, 4, 6, 8, 10, 50)] == [
        128, 128, 128, 160, 192, 192, 192
    ]  # fmt: skip
    assert [training_size(settings(image_size=176), epoch) for epoch in (0, 99)] == [176, 176]


def test_evaluations_have_their_own_size_or_the_last_one() -> None:
    assert evaluation_size(settings(image_size=192, first_image_size=128, grow_until=3), 0) == 192
    assert evaluation_size(settings(image_size=192, eval_image_size=256), 7) == 256


def test_ranks_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert decode_threads(settings()) == 64
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert decode_threads(settings()) == 8
    assert decode_threads(settings(threads=3)) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "100")
    assert decode_threads(settings()) == 1


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("--data.loader=memory", "data.loader: expected ffcv or torchvision for data.name: imagenette"),
        ("--data.augmentation=crop_flip", "data.augmentation: expected none or resized_crop_flip"),
        ("--data.image_size=4", "data.image_size: expected at least 8 pixels, got 4"),
        ("--data.first_image_size=96", "data.grow_until: expected an epoch after data.grow_from"),
        ("--data.center_crop=0", "data.center_crop: expected a fraction above 0"),
        ("--data.min_crop_area=1.5", "data.min_crop_area: expected a fraction above 0, up to 1"),
        ("--data.threads=0", "data.threads: expected 1 to 1024, or null"),
        ("--data.threads=100000", "data.threads: expected 1 to 1024, or null"),
        (
            "--data.timeout_seconds=.inf",
            "data.timeout_seconds: expected a number of seconds above 0, up to 1000000",
        ),
        ("--data.timeout_seconds=0", "data.timeout_seconds: expected a number of seconds above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(word: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        load_recipe(ROOT / "recipes" / "imagenette" / "resnet18.yaml", [word])
