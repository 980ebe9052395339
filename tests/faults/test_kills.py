"""The short form of `python -m tests.faults`: one run on two ranks, killed in a save and in a step."""

from pathlib import Path

import pytest

from addertrain.recipe import load_recipe
from addertrain.train.run import fit
from tests.faults.campaign import killed_run
from tests.ranks import on_ranks
from tests.train.small_runs import DIGITS, launched

WORDS = ["--schedule.epochs=1", "--train.save_every_steps=5", "--train.recalibrate_batches=2"]

pytestmark = [pytest.mark.distributed, pytest.mark.faults]


def _left_alone(run: Path) -> str:
    launched()
    return fit(load_recipe(DIGITS, WORDS), run).weights_sha256


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_weights(tmp_path: Path) -> None:
    expected, _ = on_ranks(2, _left_alone, tmp_path / "whole")

    killed = killed_run(tmp_path / "killed", ["fit", str(DIGITS), *WORDS], ["save", "step"], seed=0)

    assert [strike.moment for strike in killed.strikes] == ["save", "step"]
    assert killed.weights_sha256 == expected
