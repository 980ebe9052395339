"""Runs of seconds: the digits recipe cut short, and a network of two layers on random images."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from addertrain.checkpoint.contents import POSITION_KEYS
from addertrain.checkpoint.files import has_tensors, read_manifest, read_tensors
from addertrain.checkpoint.store import step_of
from addertrain.data import ImageArrays, ImageData, MemoryLoader, load_data
from addertrain.nn import AdderConv2d, BatchNorm2d
from addertrain.recipe import DataRecipe, OptimRecipe, Recipe, load_recipe
from addertrain.train.callbacks.meter import TrainMeter
from addertrain.train.callbacks.saving import SaveCheckpoints
from addertrain.train.run_directory import RunDirectory
from tests.source_tree import ROOT

DIGITS = ROOT / "recipes" / "digits" / "lenet5bn.yaml"
# 5 steps an epoch; every checkpoint stays, so that a test can go back to any of them. Every rank normalises
# by its own images: then ranks have statistics of their own, which checkpoints must keep.
SHORT = [
    "--data.global_batch_size=256",
    "--schedule.epochs=3",
    "--train.recalibrate_batches=2",
    "--train.keep_checkpoints=99",
    "--train.sync_batchnorm=false",
]
_OneOf = TypeVar("_OneOf", bound=Callback)
OPTIM = OptimRecipe(lr=0.1, weight_decay=5e-4)


def short_recipe(*overrides: str) -> Recipe:
    return load_recipe(DIGITS, [*SHORT, *overrides])


def few_digits(*, root: Path, num_train: int = 64, num_test: int = 32) -> ImageData:
    """The first digits, as a data set that a recipe names by this function."""
    data = load_data(DataRecipe(name="digits", global_batch_size=num_train))
    assert isinstance(data.train, ImageArrays)
    assert isinstance(data.test, ImageArrays)
    train = ImageArrays(data.train.images_nchw[:num_train], data.train.labels[:num_train])
    test = ImageArrays(data.test.images_nchw[:num_test], data.test.labels[:num_test])
    return replace(data, train=train, test=test)


class ReadEvery(Callback):
    """Has a run's meter read losses and norms every so many steps."""

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            _callback_of(trainer, TrainMeter).every_steps = self._num_steps


class TellFailedSaves(Callback):
    """Adds to `told` every failed save that a run goes on after."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            saves_of(trainer).on_failure = lambda error: self._told.append(str(error))


def saves_of(trainer: Trainer) -> SaveCheckpoints:
    """What writes the checkpoints of a run."""
    return _callback_of(trainer, SaveCheckpoints)


def _callback_of(trainer: Trainer, kind: type[_OneOf]) -> _OneOf:
    return next(each for each in trainer.callbacks if isinstance(each, kind))  # type: ignore[attr-defined]


class TinyNet(nn.Module):
    """An adder layer, a norm, a linear layer: 8x8 images to 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = AdderConv2d(1, 4, 3, offset_free=True)
        self.norm = BatchNorm2d(4, relu=True)
        self.head = nn.Linear(144, 10)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.norm(self.conv(images))
        logits: Tensor = self.head(features.flatten(1))
        return logits


def random_arrays(num_images: int = 96, *, seed: int = 1) -> ImageArrays:
    """Images and labels that have nothing to do with each other."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (num_images, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (num_images,), generator=generator)
    return ImageArrays(images.contiguous(memory_format=torch.channels_last), labels)


def random_loader(
    num_images: int = 96, *, training: bool, global_batch_size: int = 16, rank: int = 0, world_size: int = 1
) -> MemoryLoader:
    return MemoryLoader(
        random_arrays(num_images, seed=1 if training else 2),
        global_batch_size=global_batch_size,
        rank=rank,
        world_size=world_size,
        training=training,
    )


def launched(rank: int | None = None) -> None:
    """Sets a launcher's variables for a rank of `on_ranks`, whose group exists already."""
    size = str(dist.get_world_size())
    os.environ |= {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ |= {"RANK": str(dist.get_rank()), "LOCAL_RANK": str(dist.get_rank())}


def rewind(run: Path, *, to_epoch: int | None = None, to_step: int | None = None) -> None:
    """Leaves `run` as a process that was killed after so many whole epochs, or steps, would have left it."""
    (run / "summary.json").unlink()
    for path in RunDirectory(run).store.newest_first():
        step, epoch = step_of(path)
        if (to_epoch is not None and epoch > to_epoch) or (to_step is not None and step > to_step):
            shutil.rmtree(path)


def final_weights(run: Path) -> dict[str, Tensor]:
    """All tensors of the newest checkpoint: parameters, buffers, momentum, averaged ones and companions."""
    newest = RunDirectory(run).store.newest_first()[0]
    manifest = read_manifest(newest)
    found: dict[str, Tensor] = {}
    for file in ("model", "optimizer", "rank_buffers", "companions"):
        if has_tensors(manifest, file):
            found |= read_tensors(newest, file)
    average = read_tensors(newest, "average") if has_tensors(manifest, "average") else {}
    return found | {f"average/{name}": values for name, values in average.items()}


def assert_resumed_exactly(resumed: Path, whole: Path) -> None:
    """Compares all that two runs leave in their last checkpoint, but for the time that it took."""
    assert_same_bits(final_weights(resumed), final_weights(whole))
    states = []
    for run in (resumed, whole):
        manifest = read_manifest(RunDirectory(run).store.newest_first()[0])
        state = {name: value for name, value in manifest["state"].items() if name != "clock"}
        states.append([state, manifest["optimizer"], *(manifest[key] for key in POSITION_KEYS)])
    assert states[0] == states[1]


def assert_same_bits(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different, different
