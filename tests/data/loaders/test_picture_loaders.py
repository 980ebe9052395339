"""What every loader of pictures promises: the same bits on any number of threads and ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from addertrain.data import Batch, ImageData, ImageLoader, PictureLoader, build_loader, load_data
from addertrain.data.beton.reader import BetonReader
from addertrain.data.crops import random_crops
from addertrain.data.loaders.torchvision_reader import TorchvisionReader
from addertrain.data.sources.folder import folder_of_classes
from addertrain.recipe import DataRecipe


def loader(reader: Any, **options: Any) -> PictureLoader:
    defaults = {"global_batch_size": 8, "training": True, "image_size": lambda epoch: 64, "num_threads": 2}
    return PictureLoader(reader, **(defaults | options))


@pytest.fixture(scope="session", params=["torchvision", "ffcv"])
def reader(request: pytest.FixtureRequest, folder: Path) -> Any:
    """One reader of each kind, over the same 45 pictures."""
    if request.param == "torchvision":
        return TorchvisionReader(folder_of_classes(folder))
    return BetonReader.open(request.getfixturevalue("beton"))


def hashes(batches: Any) -> list[tuple[int, list[int], list[int]]]:
    return [(hash(b.images.numpy().tobytes()), b.labels.tolist(), b.samples.tolist()) for b in batches]


@pytest.mark.parametrize("num_threads", [1, 4])
def test_any_number_of_threads_gives_the_same_bits(reader: Any, num_threads: int) -> None:
    one, other = loader(reader), loader(reader, num_threads=num_threads)
    for epoch in (0, 3):
        one.set_epoch(epoch)
        other.set_epoch(epoch)
        assert hashes(one) == hashes(other)


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("training", [True, False])
def test_ranks_together_see_the_global_batches_of_one(reader: Any, world_size: int, training: bool) -> None:
    alone = loader(reader, training=training)
    ranks = [loader(reader, training=training, rank=r, world_size=world_size) for r in range(world_size)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        for k, tensor in enumerate(whole):
            assert torch.equal(torch.cat([part[k] for part in parts]), tensor)


def test_every_image_is_evaluated_once(reader: Any) -> None:
    samples = [sample for batch in loader(reader, training=False) for sample in batch.samples.tolist()]
    assert samples == list(range(45))


@pytest.mark.parametrize("start", range(6))
def test_a_seek_gives_the_identical_tail(reader: Any, start: int) -> None:
    one, other = loader(reader, seed=2), loader(reader, seed=2)
    one.set_epoch(1)
    other.load_state_dict({"epoch": 1, "batch": start})
    assert hashes(other) == hashes(one)[start:]


def test_epochs_and_seeds_differ(reader: Any) -> None:
    one = loader(reader)
    first = hashes(one)
    one.set_epoch(1)
    assert hashes(one) != first != hashes(loader(reader, seed=1))


def test_an_image_is_its_box_of_the_picture_resized(folder: Path, reader: Any) -> None:
    """Against the obvious way, picture by picture; kinds of interpolation differ, so to a few grey levels."""
    files = folder_of_classes(folder)
    batch: Batch = next(iter(loader(reader, seed=4)))
    crops = random_crops(batch.samples.numpy(), seed=4, epoch=0)
    for k, sample in enumerate(batch.samples.tolist()):
        picture = torch.from_numpy(files.picture(sample).pixels).permute(2, 0, 1)
        expected = v2.functional.resized_crop(picture, *crops.box(k, *picture.shape[1:]), size=[64, 64])
        if crops.is_flipped[k]:
            expected = expected.flip(2)
        assert (batch.images[k].float() - expected.float()).abs().mean() < 8


def test_an_evaluation_sees_the_middle_of_every_picture(folder: Path, reader: Any) -> None:
    files = folder_of_classes(folder)
    batch = next(iter(loader(reader, training=False, center_share=1.0)))
    for k in range(8):
        picture = torch.from_numpy(files.picture(k).pixels).permute(2, 0, 1)
        middle = v2.functional.center_crop(picture, [min(picture.shape[1:])])
        expected = v2.functional.resize(middle, [64, 64], antialias=True)
        assert (batch.images[k].float() - expected.float()).abs().mean() < 8


def test_two_loaders_of_one_reader_live_side_by_side(reader: Any) -> None:
    training, evaluation = loader(reader), loader(reader, training=False)
    together = [batches for pair in zip(training, evaluation, strict=False) for batches in pair]
    assert hashes(together[::2]) == hashes(training)
    assert hashes(together[1::2]) == hashes(evaluation)[:5]


def recipe(**settings: Any) -> DataRecipe:
    defaults = {
        "name": "folder",
        "loader": "torchvision",
        "global_batch_size": 8,
        "augmentation": "resized_crop_flip",
        "image_size": 32,
        "threads": 1,
    }
    return DataRecipe(**(defaults | settings))


@pytest.fixture(scope="session")
def data(data_root: Path) -> ImageData:
    return load_data(recipe(root=str(data_root)))


def build(data: ImageData, settings: DataRecipe, *, training: bool) -> ImageLoader:
    return build_loader(data, settings, training=training, seed=0)


def test_a_recipe_of_pictures_becomes_loaders(data: ImageData) -> None:
    assert (data.num_classes, len(data.train), len(data.test)) == (5, 45, 45)
    training, evaluation = (build(data, recipe(), training=training) for training in (True, False))
    assert (len(training), len(evaluation)) == (5, 6)
    assert next(iter(training)).images.shape == (8, 3, 32, 32)
    assert build(data, recipe(eval_image_size=48), training=False)
    assert next(iter(build(data, recipe(eval_image_size=48), training=False))).images.shape[-1] == 48


def test_images_grow_over_the_epochs(data: ImageData) -> None:
    settings = recipe(image_size=128, first_image_size=64, grow_from=1, grow_until=5)
    training = build(data, settings, training=True)
    sizes = []
    for epoch in range(7):
        training.set_epoch(epoch)
        sizes.append(next(iter(training)).images.shape[-1])
    assert sizes == [64, 64, 64, 96, 128, 128, 128]
    assert next(iter(build(data, settings, training=False))).images.shape[-1] == 128


def test_augmentation_none_trains_on_the_middle(data: ImageData) -> None:
    training = build(data, recipe(augmentation="none"), training=True)
    evaluation = build(data, recipe(), training=False)
    images = {s: image for b in evaluation for s, image in zip(b.samples.tolist(), b.images, strict=True)}
    batch = next(iter(training))
    for sample, image in zip(batch.samples.tolist(), batch.images, strict=True):
        assert torch.equal(image, images[sample])
