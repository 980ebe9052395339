"""Keys that say how to train: what the checks refuse, in one line that names key and cure."""

from pathlib import Path

import pytest

from addertrain.recipe import RecipeError, load_recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "digits" / "lenet5bn.yaml"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--schedule.name=linear"], "expected one of cosine, polynomial, step"),
        (["--schedule.warmup_epochs=40"], "0 or above, below schedule.epochs (40), got 40.0"),
        (["--schedule.warmup_epochs=-1"], "schedule.warmup_epochs: expected 0 or above"),
        (["--schedule.power=0"], "schedule.power: expected a finite number above 0"),
        (["--schedule.step_epochs=0"], "schedule.step_epochs: expected at least 1"),
        (["--schedule.step_factor=1"], "schedule.step_factor: expected a number between 0 and 1"),
        (["--optim.label_smoothing=1"], "optim.label_smoothing: expected a number from 0 to below 1"),
        (["--optim.clip_norm=0"], "optim.clip_norm: expected a finite number above 0, or null"),
        (["--optim.name=muon", "--train.strategy=fsdp"], "auto or ddp with optim.name: muon, which needs"),
        (
            ["--optim.name=muon", "--optim.alr=local"],
            "optim.alr: expected global or off with optim.name: muon",
        ),
        (["--train.accumulate=3"], "train.accumulate: expected a divisor of data.global_batch_size (64)"),
        (["--train.accumulate=0"], "train.accumulate: expected a divisor"),
        (["--train.nonfinite_limit=-1"], "train.nonfinite_limit: expected 0 or above"),
        (["--train.ema_decay=1"], "train.ema_decay: expected a number from 0 to below 1"),
        (["--train.ema_decay=0.9", "--train.recalibrate_batches=0"], "train.recalibrate_batches above 0"),
        (["--schedule.p_start=2.5"], "schedule.p_start: expected a number from 1 to 2"),
        (["--data.crop_until=3"], "below schedule.epochs (40), with data.augmentation: crop_flip, got 3"),
        (["--data.augmentation=crop_flip", "--data.crop_until=40"], "data.crop_until: expected null, or 1"),
        (["--data.augmentation=crop_flip", "--data.crop_until=0"], "data.crop_until: expected null, or 1"),
        (["--schedule.p_start=2"], "schedule.p_epochs: expected 1 to schedule.epochs (40)"),
        (["--schedule.p_epochs=2"], "if schedule.p_start is above 1, otherwise 0, got 2"),
        (["--model.input_slope=3"], "model.input_slope: expected a finite number above 0, and 1 unless"),
        (["--model.kind=conv", "--model.filter_gradient=sign"], "model.kind: expected adder with other"),
        (
            ["--train.compile=inductor", "--schedule.p_start=2", "--schedule.p_epochs=9"],
            "train.compile: expected off",
        ),
        (["--distill.teacher=frozen"], "distill.checkpoint: expected a run or checkpoint if"),
        (["--distill.checkpoint=x"], "otherwise null, got 'x'"),
        (["--distill.teacher=twin", "--train.compile=inductor"], "distill.teacher: expected none unless"),
        (["--distill.weight=2"], "distill.weight: expected a number from 0 to 1"),
        (["--distill.temperature=0"], "distill.temperature: expected a finite number above 0"),
        (["--distill.feature_weight=-1"], "distill.feature_weight: expected a finite number, 0 or above"),
    ],
)
def test_what_means_nothing_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(RECIPE, overrides)

    assert words in str(caught.value)
