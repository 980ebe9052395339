"""Runs of a small network that save under one strategy and number of ranks and go on under another.

The network is smooth, so that sums in another order stay rounding errors; no number of ranks divides its
filters; norms are synchronised, so that every number of ranks trains alike.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import silu

from addertrain.checkpoint.files import read_tensors, verify_checkpoint
from addertrain.nn import AdderConv2d, BatchNorm2d, synchronise_norms
from addertrain.recipe import TrainRecipe
from addertrain.train.lightning_settings import silence_lightning
from addertrain.train.module import AdderClassifier
from addertrain.train.processes import detect_world
from addertrain.train.strategies.checkpoint_io import DirectoryCheckpointIO
from addertrain.train.strategies.choice import trainer_settings
from tests.train.small_runs import OPTIM, launched, random_loader

STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp")
SAVED_AT, NUM_STEPS = 3, 10
BATCH = 24  # 1, 2, 3 and 4 ranks share it
OLD = Path(__file__).parent / "old_checkpoints" / "matrix"


class Place(NamedTuple):
    """Where a run is: how many ranks, and how they share the work."""

    strategy: str
    num_ranks: int

    def __str__(self) -> str:
        return f"{self.strategy} on {self.num_ranks}"


class SmoothNet(nn.Module):
    """8x8 images to 10 classes; layers of 45, 315 and 70 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 5, 3, bias=False)
        self.norm1 = BatchNorm2d(5)
        self.conv = AdderConv2d(5, 7, 3, offset_free=True)
        self.norm2 = BatchNorm2d(7)
        self.head = nn.Linear(7, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = silu(self.norm2(self.conv(silu(self.norm1(self.stem(images))))))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


class SaveAt(Callback):
    """Saves before the first step, where a name is given, and after step `last`."""

    def __init__(self, last: int, end: Path, start: Path | None = None) -> None:
        self.last, self.end, self.start = last, end, start

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.start is not None:
            trainer.save_checkpoint(self.start)

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.last:
            trainer.save_checkpoint(self.end)


def _run(
    strategy: str, last: int, end: Path, *, source: Path | None = None, start: Path | None = None
) -> None:
    """Trains from the beginning or from `source` to step `last`."""
    world = detect_world()
    torch.manual_seed(0)
    model = SmoothNet()
    synchronise_norms(model)
    module = AdderClassifier(model, mean=(0.5,), std=(0.3,), optim=OPTIM, num_steps=40)
    trainer = Trainer(
        **trainer_settings(TrainRecipe(strategy=strategy), world, DirectoryCheckpointIO()),  # type: ignore[arg-type]
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[SaveAt(last, end, start)],
        max_steps=last,
    )
    loader = random_loader(
        20 * BATCH, training=True, global_batch_size=BATCH, rank=world.rank, world_size=world.size
    )
    trainer.fit(module, loader, ckpt_path=str(source) if source else None)


def save_all(folder: Path, strategies: tuple[str, ...]) -> None:
    """On every rank: trains a few steps under each strategy and saves."""
    launched()
    silence_lightning()
    for strategy in strategies:
        _run(strategy, SAVED_AT, folder / str(Place(strategy, dist.get_world_size())))


def load_all(folder: Path, pairs: Sequence[tuple[Place | str, str]]) -> None:
    """On every rank: loads each source under a strategy, saves at once, trains on and saves again."""
    launched()
    silence_lightning()
    for source, strategy in pairs:
        start, end = resumed(folder, source, Place(strategy, dist.get_world_size()))
        _run(strategy, SAVED_AT + NUM_STEPS, end, source=folder / str(source), start=start)


def copy_old(folder: Path) -> None:
    """Puts the checkpoints in that `save_all` made in an earlier version, under the names of `old`."""
    for path in OLD.iterdir():
        strategy, _, num_ranks = path.name.partition("_on_")
        shutil.copytree(path, folder / old(Place(strategy, int(num_ranks))))


def old(place: Place) -> str:
    """The source that an earlier version saved at `place`."""
    return f"{place}, old"


def resumed(folder: Path, source: Place | str, target: Place) -> tuple[Path, Path]:
    """The checkpoints of `source` gone on at `target`: before its first step, and after its last."""
    name = f"{source}, {target}"
    return folder / f"{name}, start", folder / f"{name}, end"


def tensors(path: Path) -> dict[str, Tensor]:
    """Parameters, mean buffers and momentum, verified."""
    verify_checkpoint(path)
    return read_tensors(path, "model") | read_tensors(path, "optimizer")


def apart(found: Path, expected: Path, since: Path) -> float:
    """Distance of two runs' tensors, relative to how far training has moved them since a checkpoint."""
    ours, theirs, before = tensors(found), tensors(expected), tensors(since)
    assert ours.keys() == theirs.keys() == before.keys()
    distance, moved = (
        torch.cat([(theirs[name].double() - other[name].double()).flatten() for name in theirs]).norm()
        for other in (ours, before)
    )
    return float(distance / moved)
