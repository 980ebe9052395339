"""Recipes that choose the layers' gradients, or a power that falls from 2 to 1 while they train."""

import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from addertrain.nn import AdderConv2d
from addertrain.ops.variants import Variant
from addertrain.train.building import variant_at
from addertrain.train.callbacks.falling_power import FallingPower
from addertrain.train.module import AdderClassifier
from addertrain.train.run import evaluate, fit
from tests.train.small_runs import assert_resumed_exactly, final_weights, rewind, short_recipe

# Two steps an epoch on few images: a pair of a patch and a filter takes nanoseconds between the whole powers.
FEW = (
    "--data.name=tests.train.small_runs:few_digits",
    "--data.global_batch_size=32",
    "--train.recalibrate_batches=0",
)
FALLING = (*FEW, "--schedule.p_start=2", "--schedule.p_epochs=2", "--train.save_every_steps=3")


def test_the_power_falls_linearly_and_stays_at_one() -> None:
    recipe = short_recipe("--schedule.p_start=1.8", "--schedule.p_epochs=2", "--model.input_gradient=sign")

    powers = [variant_at(recipe, step, steps_per_epoch=5).p for step in range(1, 14)]

    expected = [1.8 - 0.8 * step / 9 for step in range(10)] + [1.0, 1.0, 1.0]
    assert powers == pytest.approx(expected, rel=1e-15)
    assert powers[9:] == [1.0] * 4
    assert variant_at(recipe, 0, steps_per_epoch=5) == variant_at(recipe, 1, steps_per_epoch=5)
    assert variant_at(recipe, 99, steps_per_epoch=5) == Variant(input_gradient="sign")


class _Powers(Callback):
    """Notes the power at each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        layers = [layer for layer in pl_module.modules() if isinstance(layer, AdderConv2d)]
        (power,) = {1.0 if layer.variant is None else layer.variant.p for layer in layers}
        self.seen.append(power)


@pytest.fixture(scope="module")
def falling(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A finished run, and the power at each of its steps."""
    path, powers = tmp_path_factory.mktemp("runs") / "falling", _Powers()
    fit(short_recipe(*FALLING), path, callbacks=[powers])
    return path, powers.seen


def test_a_run_lowers_the_power_at_every_step(falling: tuple[Path, list[float]]) -> None:
    _, powers = falling

    assert powers == pytest.approx([2.0, 5 / 3, 4 / 3, 1.0, 1.0, 1.0], rel=1e-15)
    assert powers[0] == 2.0
    assert powers[3:] == [1.0] * 3


def test_a_run_that_ends_with_the_fall_is_evaluated_at_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    validation_step = AdderClassifier.validation_step

    def watched(self: AdderClassifier, batch: object, batch_idx: int) -> None:
        seen.append(self.model.get_submodule("conv1").variant)
        validation_step(self, batch, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(AdderClassifier, "validation_step", watched)
    powers = _Powers()
    recipe = short_recipe(*FALLING, "--schedule.epochs=2")
    fit(recipe, tmp_path / "run", callbacks=[powers])

    assert powers.seen[-1] == 1.0
    assert seen[-1] is None
    assert variant_at(recipe, 4, steps_per_epoch=2) == Variant()


def test_an_evaluation_has_the_power_of_its_checkpoint(
    falling: tuple[Path, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = falling
    middle = run / "checkpoints" / "epoch_0001_step_000002"
    seen = {}
    validation_step = AdderClassifier.validation_step

    def watched(self: AdderClassifier, batch: object, batch_idx: int) -> None:
        seen["variant"] = self.model.get_submodule("conv1").variant
        validation_step(self, batch, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(AdderClassifier, "validation_step", watched)
    evaluate(middle)

    assert seen["variant"].p == pytest.approx(5 / 3, rel=1e-15)


def test_a_resumed_run_goes_on_with_the_power(falling: tuple[Path, list[float]], tmp_path: Path) -> None:
    run = shutil.copytree(falling[0], tmp_path / "run")
    rewind(run, to_step=3)  # of two an epoch

    fit(short_recipe(*FALLING), run)

    assert_resumed_exactly(run, falling[0])


def test_the_gradients_are_the_recipes(tmp_path: Path) -> None:
    variants = {
        "paper": (),
        "filter": ("--model.filter_gradient=sign",),
        "input": ("--model.input_gradient=sign",),
        "scaled": ("--model.input_gradient=ht_scaled", "--model.input_slope=4"),
    }

    weights = {
        name: fit(short_recipe(*FEW, "--schedule.epochs=1", *variant), tmp_path / name).weights_sha256
        for name, variant in variants.items()
    }

    assert len(set(weights.values())) == len(variants)


@pytest.mark.parametrize("override", ["--train.compile=aot_eager", "--train.channels_last=false"])
def test_compiled_or_channels_first_is_the_same_training(tmp_path: Path, override: str) -> None:
    fit(short_recipe(*FEW, "--schedule.epochs=1"), tmp_path / "plain")

    fit(short_recipe(*FEW, "--schedule.epochs=1", override), tmp_path / "other")

    plain, other = final_weights(tmp_path / "plain"), final_weights(tmp_path / "other")
    assert plain.keys() == other.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-4)


class _Kinds(Callback):
    """Notes of which kinds a run's callbacks are."""

    def __init__(self) -> None:
        self.of_run: set[type] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.of_run = set(map(type, trainer.callbacks))  # type: ignore[attr-defined]


def test_the_callback_is_there_only_where_the_power_falls(tmp_path: Path) -> None:
    plain, falling = _Kinds(), _Kinds()

    fit(short_recipe(*FEW, "--schedule.epochs=1"), tmp_path / "plain", callbacks=[plain])
    recipe = short_recipe(*FALLING, "--schedule.epochs=1", "--schedule.p_epochs=1")
    fit(recipe, tmp_path / "falling", callbacks=[falling])

    assert FallingPower not in plain.of_run
    assert FallingPower in falling.of_run
