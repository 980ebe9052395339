"""A poisoned batch ends the training before its update; the message names it and the first bad layer."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import one_hot

from addertrain.checkpoint.store import CheckpointStore
from addertrain.data import Batch, ImageData, ImageLoader, MemoryLoader, build_loader
from addertrain.errors import NonFiniteError
from addertrain.recipe import DataRecipe
from addertrain.train import loaders
from addertrain.train.callbacks.guard import FiniteGuard
from addertrain.train.callbacks.saving import SaveCheckpoints
from addertrain.train.module import AdderClassifier
from addertrain.train.processes import World
from addertrain.train.run import fit
from addertrain.train.strategies.checkpoint_io import DirectoryCheckpointIO
from addertrain.train.strategies.choice import make_strategy
from tests.ranks import on_ranks
from tests.train.small_runs import (
    OPTIM,
    TinyNet,
    assert_same_bits,
    launched,
    random_arrays,
    random_loader,
    short_recipe,
)

BAD_STEP = 8  # the second batch of the second epoch

Poison = Callable[[Batch], Batch]


def _nan_image(batch: Batch) -> Batch:
    images = batch.images.clone()
    images[3] = math.nan
    return batch._replace(images=images)


def _bad_mixture(batch: Batch) -> Batch:
    targets = one_hot(batch.labels, 10).float()
    targets[5, 2] = math.inf
    return batch._replace(labels=targets)


class _FloatLoader(MemoryLoader):
    """Random images, normalised already: only floats can be NaN."""

    def __init__(self) -> None:
        super().__init__(random_arrays(), global_batch_size=16, training=True)

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            yield batch._replace(images=(batch.images.float() / 255 - 0.5) / 0.3)


class _PoisonedLoader(_FloatLoader):
    """One batch is bad in the second epoch."""

    def __init__(self, poison: Poison) -> None:
        super().__init__()
        self._poison = poison

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(super().__iter__()):
            is_bad = (self._epoch, number) == divmod(BAD_STEP - 1, 6)
            yield self._poison(batch) if is_bad else batch


class _Watch(Callback):
    """Copies weights and momentum after every step."""

    def __init__(self) -> None:
        self.after: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.after = _weights(trainer, pl_module)


def _weights(trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
    optimizer = trainer.optimizers[0]
    named = list(module.named_parameters())
    state = [
        (f"{name}.{key}", value)
        for name, parameter in named
        for key, value in optimizer.state[parameter].items()
    ]
    return {name: value.detach().clone() for name, value in [*named, *state]}


def _stopped(folder: Path, loader: object, model: nn.Module | None = None, **settings: object) -> str:
    """Trains into the poison; the weights are those of the step before. Returns the message."""
    torch.manual_seed(0)
    module = AdderClassifier(model or TinyNet(), mean=None, std=None, optim=OPTIM, num_steps=18)
    watch, saves = _Watch(), SaveCheckpoints(CheckpointStore(folder), keep=9)
    defaults: dict[str, object] = {
        "strategy": make_strategy("auto", World(), DirectoryCheckpointIO()),
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False, "max_epochs": 3,
        "callbacks": [FiniteGuard(saves), watch, saves],
    }  # fmt: skip
    trainer = Trainer(**{**defaults, **settings})  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(module, loader)
    assert_same_bits(_weights(trainer, module), watch.after)
    return str(caught.value)


@pytest.mark.parametrize(
    ("poison", "words"),
    [(_nan_image, "got NaN in the images in epoch 2, "), (_bad_mixture, "in the loss in epoch 2, ")],
)
def test_a_poisoned_batch_never_reaches_the_weights(tmp_path: Path, poison: Poison, words: str) -> None:
    loader = _PoisonedLoader(poison)
    row = 3 if poison is _nan_image else 5
    clean = MemoryLoader(random_arrays(), global_batch_size=16, training=True)
    clean.set_epoch(1)
    bad_image = [batch.samples[row].item() for batch in clean][1]

    message = _stopped(tmp_path, loader)

    assert words in message
    assert f"batch 2 (image {bad_image}), step {BAD_STEP}" in message
    assert "the last good checkpoint is epoch_0001_step_000006" in message
    assert [path.name for path in CheckpointStore(tmp_path).newest_first()] == ["epoch_0001_step_000006"]


class _Overflow(nn.Module):
    """The identity, which overflows in one forward or backward pass."""

    def __init__(self, *, at_call: int, backward: bool) -> None:
        super().__init__()
        self._at_call, self._backward, self._calls = at_call, backward, 0

    def forward(self, x: Tensor) -> Tensor:
        self._calls += 1
        if self._calls < self._at_call:
            return x
        if not self._backward:
            return torch.cat([x[:2], x[2:] * math.inf])
        y = x.clone()
        if y.requires_grad:
            y.register_hook(lambda grad: grad * math.inf)
        return y


def _overflowing(*, backward: bool) -> TinyNet:
    model = TinyNet()
    model.norm = nn.Sequential(model.norm, _Overflow(at_call=BAD_STEP, backward=backward))  # type: ignore[assignment]
    return model


def test_the_first_bad_layer_is_named(tmp_path: Path) -> None:
    message = _stopped(tmp_path, _FloatLoader(), _overflowing(backward=False))

    assert "in the output of norm.1 (_Overflow) in epoch 2, batch 2 (images " in message


def test_a_bad_gradient_is_named_by_its_layer(tmp_path: Path) -> None:
    message = _stopped(tmp_path, _FloatLoader(), _overflowing(backward=True))

    assert "in the gradient of norm.0.bias in epoch 2, batch 2, step 8" in message


def test_a_bad_part_of_a_batch_stops_the_whole_step(tmp_path: Path) -> None:
    message = _stopped(tmp_path, _PoisonedLoader(_nan_image), accumulate_grad_batches=2)

    assert "got NaN in the images in epoch 2, batch 2 (image " in message
    assert "step 4;" in message


def _on_rank(folder: Path) -> str:
    launched()
    rank = dist.get_rank()
    loader = _PoisonedLoader(_nan_image) if rank == 1 else _FloatLoader()
    world = World(rank, 2, rank, 2, is_launched=True)
    strategy = make_strategy("ddp", world, DirectoryCheckpointIO())
    return _stopped(folder, loader, strategy=strategy, devices=2)


def test_all_ranks_stop_together_and_name_the_bad_one(tmp_path: Path) -> None:
    first, second = on_ranks(2, _on_rank, tmp_path)

    assert first == second
    assert "got NaN in the images in epoch 2, batch 2 (image " in first
    assert ") of rank 1, step 8" in first


def _fit_sharded(folder: Path) -> str:
    """A run under FSDP2 whose second rank gets the bad batch; a forward pass is a conversation there."""
    launched()
    with pytest.MonkeyPatch.context() as patch:
        if dist.get_rank() == 1:
            patch.setattr(loaders, "build_loader", _poisoned_loader)
        with pytest.raises(NonFiniteError) as caught:
            fit(short_recipe("--train.strategy=fsdp", "--train.recalibrate_batches=0"), folder)
    return str(caught.value)


def _poisoned_loader(data: ImageData, settings: DataRecipe, *, training: bool, **where: Any) -> ImageLoader:
    loader = build_loader(data, settings, training=training, **where)
    if training:
        _poison(loader)
    return loader


def _poison(loader: ImageLoader) -> None:
    """Makes the fourth batch of every epoch bad."""
    sound = type(loader).__iter__

    class Bad(type(loader)):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Batch]:
            for number, batch in enumerate(sound(self)):
                yield _bad_mixture(batch) if number == 3 else batch

    loader.__class__ = Bad


def test_ranks_that_share_parameters_stop_together(tmp_path: Path) -> None:
    first, second = on_ranks(2, _fit_sharded, tmp_path / "run")

    assert first == second
    assert "in the loss in epoch 1, batch 4 (image " in first
    assert ") of rank 1, step 4; the step was not made, and there is no checkpoint yet" in first


def test_a_sound_training_is_left_alone(tmp_path: Path) -> None:
    def weights(*callbacks: Callback) -> dict[str, Tensor]:
        torch.manual_seed(0)
        module = AdderClassifier(TinyNet(), mean=(0.5,), std=(0.3,), optim=OPTIM, num_steps=18)
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, max_epochs=1, callbacks=list(callbacks), default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, random_loader(training=True))
        return module.state_dict()

    assert_same_bits(weights(FiniteGuard()), weights())
