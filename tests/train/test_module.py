import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from addertrain.data import Batch
from addertrain.optim import AdderSGD
from addertrain.recipe import OptimRecipe
from addertrain.train.module import AdderClassifier
from tests.train.small_runs import OPTIM, TinyNet, random_arrays, random_loader


def _module(model: nn.Module | None = None, **settings: object) -> AdderClassifier:
    return AdderClassifier(
        model or TinyNet(), mean=(0.13,), std=(0.31,), **{"optim": OPTIM, "num_steps": 12, **settings}
    )


def _trainer(folder: Path, **settings: object) -> Trainer:
    """A user's own trainer: nothing of this package around the module."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        accelerator="cpu", default_root_dir=folder, enable_model_summary=False, num_sanity_val_steps=0,
        **quiet, **settings,
    )  # fmt: skip


def test_images_are_normalised_as_defined_and_keep_their_layout() -> None:
    images = random_arrays(8).images_nchw
    module = AdderClassifier(nn.Identity(), mean=(0.13,), std=(0.31,), optim=OPTIM, num_steps=12)

    got = module.normalised(images)

    expected = (images.double() / 255 - 0.13) / 0.31
    assert torch.allclose(got.double(), expected, atol=1e-6)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_channels_have_their_own_mean_and_std() -> None:
    module = AdderClassifier(
        nn.Identity(), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0), optim=OPTIM, num_steps=12
    )

    got = module.normalised(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))

    assert torch.allclose(got.flatten(), torch.tensor([0.9, 0.4, 0.175]))


def test_mean_and_std_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="got 1 means and 3"):
        AdderClassifier(TinyNet(), mean=(0.1,), std=(1.0, 1.0, 1.0), optim=OPTIM, num_steps=12)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mean": (123.7,), "std": (58.4,)}, r"values in 0\.\.1, got mean=\(123\.7,\)"),
        ({"num_steps": 0}, "num_steps as a whole number of 1 or more, got 0"),
        ({"num_steps": 2.5}, "got 2.5"),
        ({"schedule": "cos"}, "a schedule of cosine, .*, got 'cos'"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AdderClassifier(TinyNet(), **{"mean": (0.1,), "std": (0.3,), "optim": OPTIM, "num_steps": 12} | wrong)


def test_the_number_of_steps_may_be_numpys() -> None:
    module = AdderClassifier(TinyNet(), mean=(0.1,), std=(0.3,), optim=OPTIM, num_steps=np.int64(12))

    assert module.num_steps == 12


def test_a_flipped_evaluation_reads_the_mean_of_both_logits() -> None:
    images = random_arrays(8).images_nchw
    model = TinyNet().eval()
    module, plain = _module(model, flip_evaluation=True), _module(model)

    assert torch.equal(plain.judged(images), plain(images))
    assert torch.allclose(module.judged(images), (plain(images) + plain(images.flip(3))) / 2)
    mirrored = images.flip(3)
    assert torch.allclose(module.judged(mirrored), module.judged(images))


def test_only_the_model_is_in_a_checkpoint() -> None:
    module = _module()

    assert set(module.state_dict()) == {f"model.{name}" for name in TinyNet().state_dict()}


def test_a_users_own_script_trains_and_evaluates(tmp_path: Path) -> None:
    module = _module()

    _trainer(tmp_path, max_epochs=2).fit(
        module, random_loader(training=True), random_loader(40, training=False)
    )

    assert module.val_score is not None
    assert module.val_score.num_images == 40
    assert module.train_counts is not None
    assert module.train_counts.totals().num_images == 2 * 96


def test_lightnings_own_callbacks_see_the_metrics(tmp_path: Path) -> None:
    module = _module()
    trainer = _trainer(tmp_path, max_epochs=1)

    trainer.fit(module, random_loader(training=True), random_loader(40, training=False))

    assert module.val_score is not None
    assert math.isclose(trainer.callback_metrics["val_top1"].item(), module.val_score.top1, rel_tol=1e-6)


def test_the_rate_falls_every_step_to_exactly_zero(tmp_path: Path) -> None:
    rates: list[float] = []

    class Spy(AdderClassifier):
        def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
            rates.append(self.optimizers().param_groups[0]["lr"])

    module = Spy(TinyNet(), mean=(0.13,), std=(0.31,), optim=OPTIM, num_steps=12)
    trainer = _trainer(tmp_path, max_epochs=2)

    trainer.fit(module, random_loader(training=True))

    assert rates == [0.1 * 0.5 * (1 + math.cos(math.pi * step / 12)) for step in range(12)]
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.0


def test_the_recipes_settings_reach_the_optimizer(tmp_path: Path) -> None:
    optim = OptimRecipe(
        lr=0.3, weight_decay=1e-4, momentum=0.5, nesterov=False, eta=0.1, alr="increased", increase=7.0,
        decay_norm_and_bias=False,
    )  # fmt: skip
    module = _module(optim=optim)
    trainer = _trainer(tmp_path, max_epochs=1, limit_train_batches=1)

    trainer.fit(module, random_loader(training=True))

    optimizer = trainer.optimizers[0]
    assert isinstance(optimizer, AdderSGD)
    group = optimizer.param_groups[0]
    assert [group[key] for key in ("initial_lr", "momentum", "nesterov", "eta", "alr", "increase")] == [
        0.3, 0.5, False, 0.1, "increased", 7.0,
    ]  # fmt: skip
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4, 1e-4, 0.0]


def test_rates_follow_the_batch_by_the_recipes_rules() -> None:
    optim = replace(OPTIM, adder_lr_scaling="sqrt", lr_scaling="linear", adder_decay_scaling="sqrt")
    module = AdderClassifier(TinyNet(), mean=(0.5,), std=(0.3,), optim=optim, num_steps=10, batch_scale=4.0)

    filters, others = module.configure_optimizers()["optimizer"].param_groups

    assert (filters["initial_lr"], others["initial_lr"]) == pytest.approx((2 * OPTIM.lr, 4 * OPTIM.lr))
    assert filters["weight_decay"] == pytest.approx(2 * OPTIM.weight_decay)
    assert others["weight_decay"] == OPTIM.weight_decay
