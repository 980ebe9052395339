"""Everything that acts on a step, at once, resumed inside an epoch."""

import shutil
from pathlib import Path

from addertrain.checkpoint.files import read_tensors
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory
from tests.train.small_runs import assert_same_bits, final_weights, short_recipe

OPTIONS = (
    "--train.accumulate=2", "--train.ema_decay=0.9", "--train.save_every_steps=4",
    "--schedule.name=step", "--schedule.step_epochs=1", "--schedule.step_factor=0.5",
    "--schedule.warmup_epochs=1.2", "--schedule.epochs=3", "--optim.clip_norm=2.0",
    "--optim.label_smoothing=0.1", "--model.input_gradient=sign", "--distill.teacher=twin",
)  # fmt: skip


def test_a_resumption_inside_an_epoch_keeps_every_option_exact(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    fit(short_recipe(*OPTIONS), whole)
    shutil.copytree(whole, resumed)
    (resumed / "summary.json").unlink()
    for path in RunDirectory(resumed).store.newest_first():
        if int(path.name.rpartition("_")[2]) > 8:  # the third step of the second epoch
            shutil.rmtree(path)

    summary = fit(short_recipe(*OPTIONS), resumed)

    assert summary.steps == 15
    assert_same_bits(final_weights(resumed), final_weights(whole))
    newest = [RunDirectory(run).store.newest_first()[0] for run in (resumed, whole)]
    for file in ("average", "companions"):
        assert_same_bits(*(read_tensors(path, file) for path in newest))
