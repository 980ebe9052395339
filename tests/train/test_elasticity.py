"""Another number of ranks in mid-epoch: the same images in the same steps, each with its weight."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from addertrain.recipe import Recipe
from addertrain.train.classification_counts import ClassificationCounts
from addertrain.train.module import AdderClassifier
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory, Summary
from tests.ranks import on_ranks
from tests.train.small_runs import OPTIM, TinyNet, final_weights, launched, random_loader, short_recipe

pytestmark = pytest.mark.distributed

Seen = dict[int, list[int]]
"""Step -> the samples that one rank has seen in it."""


class Killed(Exception):
    """Stands for a kill of all ranks."""


class Recorder(Callback):
    """Notes which images go into which step; ends the run after `last_step` and its save, as a kill would."""

    def __init__(self, last_step: int) -> None:
        self.seen: Seen = {}
        self._last_step = last_step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._last_step:
            raise Killed
        self.seen.setdefault(trainer.global_step, []).extend(batch.samples.tolist())


def _recorded(recipe: Recipe, run: Path, last_step: int) -> tuple[Seen, Summary | None]:
    if dist.is_initialized():
        launched()
    recorder = Recorder(last_step)
    try:
        return recorder.seen, fit(recipe, run, callbacks=[recorder])
    except Killed:
        return recorder.seen, None


def _of_all_ranks(ranks: list[tuple[Seen, Summary | None]]) -> Seen:
    """The samples of every step, in the order of the ranks."""
    return {step: [sample for seen, _ in ranks for sample in seen[step]] for step in ranks[0][0]}


def check_same_samples(recipe: Recipe, folder: Path, kills: tuple[int, int]) -> None:
    """Two ranks until the first kill, one until the second, four to the end: beside one that goes through."""
    whole, _ = _recorded(recipe, folder / "whole", -1)
    run, seen = folder / "run", {}
    for world_size, last_step in ((2, kills[0]), (1, kills[1]), (4, -1)):
        ranks = on_ranks(world_size, _recorded, recipe, run, last_step)
        of_all = _of_all_ranks(ranks)
        # What a kill undid is done again: the later session counts.
        seen |= of_all
    assert seen == whole


def test_two_one_four_ranks_see_what_one_sees_from_memory(tmp_path: Path) -> None:
    quick = ("--train.recalibrate_batches=0", "--train.evaluate_uncalibrated=false")
    recipe = short_recipe("--train.save_every_steps=1", "--schedule.epochs=1", *quick)

    check_same_samples(recipe, tmp_path, (2, 3))


def test_weights_make_the_mean_over_ranks_the_global_batchs() -> None:
    """Four images on three ranks: 1, 1 and 2."""
    module = AdderClassifier(
        TinyNet(), mean=(0.5,), std=(0.3,), optim=OPTIM, num_steps=1, mean_share=4 / 3
    ).double()
    module.train_counts = ClassificationCounts(torch.device("cpu"), top5=False)
    module.eval()  # a norm over the images of a rank is another network
    whole = next(iter(random_loader(training=True, global_batch_size=4)))
    expected = torch.autograd.grad(module.learn(whole)[1], module.model.head.weight)[0]
    gradients = []

    for rank in range(3):
        (batch, *_) = random_loader(training=True, global_batch_size=4, rank=rank, world_size=3)
        loss = module.training_step(batch, 0)
        gradients.append(torch.autograd.grad(loss, module.model.head.weight)[0])

    assert (torch.stack(gradients).mean(0) - expected).abs().max() < 1e-12


def _trained(run: Path, *overrides: str) -> tuple[dict[str, Tensor], Summary]:
    if dist.is_initialized():
        launched()
    words = ["--train.sync_batchnorm=true", "--schedule.epochs=1", "--train.recalibrate_batches=0"]
    summary = fit(short_recipe(*words, *overrides), run)
    return final_weights(run), summary


@pytest.mark.long
def test_three_ranks_with_unequal_shares_train_as_one(tmp_path: Path) -> None:
    """256 images are 85, 85 and 86."""
    one, alone = _trained(tmp_path / "one")

    (three, together), *_ = on_ranks(3, _trained, tmp_path / "three")

    assert (together.steps, together.world_size) == (alone.steps, 3)
    assert abs(together.top1 - alone.top1) < 1.0
    apart = [((three[k] - one[k]).norm() / one[k].norm()).item() for k in one if k.endswith("weight")]
    assert max(apart) < 1e-3  # two exact runs part at the kinks of ReLU and HT


def test_a_batch_that_ranks_cannot_share_is_one_line(tmp_path: Path) -> None:
    recipe = short_recipe("--data.global_batch_size=2")

    with pytest.raises(AssertionError, match="for each of 3 ranks, got 2 images; raise"):
        on_ranks(3, _recorded, recipe, tmp_path, -1)
    assert not RunDirectory(tmp_path).store.newest_first()
