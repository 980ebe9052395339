"""Gradient accumulation: a global batch in parts is the global batch, and ALR sees the sum."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from addertrain.data import ImageData
from addertrain.errors import UsageError
from addertrain.optim import AdderSGD
from addertrain.train.callbacks.clipping import ClipNorm
from addertrain.train.callbacks.saving import between_steps
from addertrain.train.loaders import rank_loader
from addertrain.train.module import AdderClassifier
from addertrain.train.processes import World
from addertrain.train.run import fit
from addertrain.train.strategies.choice import make_strategy
from tests.ranks import on_ranks
from tests.train.small_runs import (
    OPTIM,
    TinyNet,
    launched,
    random_arrays,
    random_loader,
    short_recipe,
)

ALONE = World()


class _Watch(ClipNorm):
    """Clips, and notes what each step saw: the rates of ALR, and where the trainer stood."""

    def __init__(self) -> None:
        super().__init__(max_norm=0.3)
        self.sq_norms: list[Tensor] = []
        self.at_steps: list[bool] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.at_steps.append(between_steps(trainer))
        optimizer = trainer.optimizers[0]
        assert isinstance(optimizer, AdderSGD)
        if self.at_steps[-1]:
            self.sq_norms.append(optimizer.last_sq_norms.clone())


def _trained(folder: Path, *, num_parts: int, world: World = ALONE) -> tuple[AdderClassifier, _Watch]:
    """Without batch norm, whose statistics are those of a part and a rank."""
    torch.manual_seed(0)
    model = TinyNet()
    model.norm = nn.Identity()  # type: ignore[assignment]
    module = AdderClassifier(
        model, mean=(0.5,), std=(0.3,), optim=OPTIM, num_steps=12, label_smoothing=0.1
    ).double()
    watch = _Watch()
    trainer = Trainer(
        accelerator="cpu", default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, max_epochs=2, devices=world.local_size,
        strategy=make_strategy("auto", world), accumulate_grad_batches=num_parts, callbacks=[watch],
    )  # fmt: skip
    loader = random_loader(
        training=True, global_batch_size=16 // num_parts, rank=world.rank, world_size=world.size
    )
    trainer.fit(module, loader)
    return module, watch


def test_parts_of_a_batch_are_the_batch(tmp_path: Path) -> None:
    whole, seen_whole = _trained(tmp_path, num_parts=1)
    parts, seen_parts = _trained(tmp_path, num_parts=4)

    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], tensor, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(seen_parts.sq_norms, seen_whole.sq_norms)
    assert seen_parts.at_steps == 12 * [False, False, False, True]


def _on_rank(folder: Path) -> dict[str, Tensor]:
    launched()
    rank = dist.get_rank()
    module, _ = _trained(folder, num_parts=2, world=World(rank, 2, rank, 2, is_launched=True))
    return module.state_dict()


def test_parts_on_ranks_are_the_batch(tmp_path: Path) -> None:
    whole, _ = _trained(tmp_path, num_parts=1)

    for state in on_ranks(2, _on_rank, tmp_path):
        for name, tensor in whole.state_dict().items():
            torch.testing.assert_close(state[name], tensor, rtol=1e-9, atol=1e-11)


def test_a_global_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    recipe = short_recipe("--data.global_batch_size=2048", "--train.accumulate=8")

    with pytest.raises(UsageError, match="at least one global batch of 2048 training images, got 1437"):
        fit(recipe, tmp_path / "run")


@pytest.mark.parametrize("num_parts", [1, 4])
@pytest.mark.parametrize("world", [ALONE, World(1, 3, 1, 3)])
def test_every_rank_makes_the_steps_that_the_recipe_says(num_parts: int, world: World) -> None:
    recipe = short_recipe("--data.global_batch_size=12", f"--train.accumulate={num_parts}")
    for num_images in (23, 24, 95):
        arrays = random_arrays(num_images)
        data = ImageData(train=arrays, test=arrays, mean=(0.5,), std=(0.3,), num_classes=10)
        loader = rank_loader(recipe, data, world, training=True)

        assert len(loader) // num_parts == recipe.steps_per_epoch(num_images) == num_images // 12
