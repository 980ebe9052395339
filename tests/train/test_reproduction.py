"""`reproduce`: what it trains, what it accepts, and what it does not fall for."""

import json
import os
import re
import shlex
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from addertrain.cli import main
from addertrain.errors import UsageError
from addertrain.recipe import Recipe
from addertrain.train.reproduction import Reproduction, judge, reproduce
from addertrain.train.run import fit
from tests.ranks import on_ranks
from tests.train.small_runs import DIGITS, SHORT, launched, rewind, short_recipe

BAND = ["--expected.top1=90", "--expected.tolerance=30"]


def _recipe(*overrides: str) -> Recipe:
    return short_recipe(*BAND, *overrides)


def _judge(recipe: Recipe, *runs: Path, out: Path) -> Reproduction:
    return judge(recipe, runs, out=out, command="the command")


def _copy(run: Path, folder: Path, name: str = "copy") -> Path:
    return Path(shutil.copytree(run, folder / name))


def test_seeds_are_trained_once_and_judged(tmp_path: Path) -> None:
    recipe = _recipe("--schedule.epochs=1", "--expected.tolerance=90")

    first = reproduce(recipe, tmp_path, num_seeds=2, command="the command")
    written = (tmp_path / "reproduction.json").stat().st_mtime_ns
    steps = [(tmp_path / f"seed_{seed}" / "summary.json").stat().st_mtime_ns for seed in (0, 1)]
    again = reproduce(recipe, tmp_path, num_seeds=2, command="the command")

    assert first.is_reproduced, first.objections
    assert [trial.seed for trial in first.trials] == [0, 1]
    assert len({trial.weights_sha256 for trial in first.trials}) == 2
    assert again.trials == first.trials
    assert steps == [(tmp_path / f"seed_{seed}" / "summary.json").stat().st_mtime_ns for seed in (0, 1)]
    assert (tmp_path / "reproduction.json").stat().st_mtime_ns > written
    plain = json.loads((tmp_path / "reproduction.json").read_text())
    assert plain["is_reproduced"] is True
    assert plain["markdown"] == first.markdown
    assert plain["mean"] == pytest.approx(sum(trial.top1 for trial in first.trials) / 2)


def test_a_finished_run_is_judged_by_its_weights(finished: Path, tmp_path: Path) -> None:
    verdict = _judge(_recipe(), finished, out=tmp_path)

    summary = json.loads((finished / "summary.json").read_text())
    assert verdict.is_reproduced, verdict.objections
    assert verdict.trials[0].top1 == pytest.approx(summary["top1"], abs=1e-4)
    assert verdict.trials[0].weights_sha256 == summary["weights_sha256"]


@pytest.mark.parametrize(("expected", "word"), [("99.9", "below"), ("10", "above")])
def test_outside_the_band(finished: Path, tmp_path: Path, expected: str, word: str) -> None:
    verdict = _judge(
        short_recipe(f"--expected.top1={expected}", "--expected.tolerance=0.05"), finished, out=tmp_path
    )

    assert not verdict.is_reproduced
    assert f"{word} the expected" in verdict.objections[0]


def test_another_recipe_is_noticed(finished: Path, tmp_path: Path) -> None:
    verdict = _judge(_recipe("--optim.lr=0.05"), finished, out=tmp_path)

    assert "optim.lr: 0.1 there, 0.05 here" in verdict.objections[0]


def test_an_edited_summary_does_not_help(finished: Path, tmp_path: Path) -> None:
    run = _copy(finished, tmp_path)
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"top1": 99.99}))
    claims = _judge(short_recipe("--expected.top1=99.9", "--expected.tolerance=0.2"), run, out=tmp_path)
    (run / "summary.json").write_text(json.dumps(summary | {"weights_sha256": "0" * 64}))
    other_weights = _judge(_recipe(), run, out=tmp_path)

    assert any("its summary.json says 99.99 %" in line for line in claims.objections)
    assert any("below the expected" in line for line in claims.objections)
    assert any("other weights" in line for line in other_weights.objections)


def test_an_unfinished_run_does_not_count(finished: Path, tmp_path: Path) -> None:
    run = _copy(finished, tmp_path)
    rewind(run, to_epoch=2)

    assert "stopped after 2 of 3 epochs" in _judge(_recipe(), run, out=tmp_path).objections[0]


def test_one_run_does_not_count_twice(finished: Path, tmp_path: Path) -> None:
    verdict = _judge(_recipe(), finished, _copy(finished, tmp_path), out=tmp_path)

    assert "the same weights" in verdict.objections[0]


def test_other_data_are_noticed(finished: Path, tmp_path: Path) -> None:
    verdict = _judge(_recipe("--expected.data_sha256=" + "a" * 64), finished, out=tmp_path)

    assert "the data are others" in verdict.objections[0]
    same = _judge(_recipe(f"--expected.data_sha256={verdict.data_sha256}"), finished, out=tmp_path)
    assert same.is_reproduced


def test_a_recipe_without_a_claim_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--expected\.top1 VALUE"):
        _judge(short_recipe("--expected.top1=null"), finished, out=tmp_path)
    with pytest.raises(UsageError, match="at least 1 seed"):
        reproduce(_recipe(), tmp_path, num_seeds=0, command="")


def test_the_command_ends_with_3(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reproduce", str(DIGITS), "--from", str(finished), "--out", str(tmp_path), *SHORT]

    assert main([*words, *BAND, "--seeds", "1", "--data.root=/a b"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("expected 90.00 ± 30.00 %: reproduced")
    command = json.loads((tmp_path / "reproduction.json").read_text())["command"]
    expected = ["addertrain", "reproduce", str(DIGITS), *SHORT, *BAND, "--data.root=/a b", "--seeds", "1"]
    assert shlex.split(command) == expected
    assert main([*words, "--expected.top1=99.9", "--expected.tolerance=0.01"]) == 3
    assert capsys.readouterr().out.splitlines()[-1].endswith(": not reproduced")


def _on_two_ranks(out: Path) -> tuple[bool, tuple[float, ...]]:
    launched()
    recipe = _recipe("--schedule.epochs=1", "--expected.tolerance=90")
    verdict = reproduce(recipe, out, num_seeds=1, command="")
    return verdict.is_reproduced, tuple(trial.top1 for trial in verdict.trials)


@pytest.mark.distributed
def test_ranks_agree_on_the_verdict(tmp_path: Path) -> None:
    first, second = on_ranks(2, _on_two_ranks, tmp_path)

    assert first == second
    assert first[0]


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    recipe = _recipe("--expected.tolerance=90")
    fit(recipe, tmp_path / "seed_0")
    rewind(tmp_path / "seed_0", to_epoch=1)

    verdict = reproduce(recipe, tmp_path, num_seeds=1, command="")

    assert verdict.is_reproduced, verdict.objections
    assert len(list((tmp_path / "seed_0" / "checkpoints").glob("epoch_*"))) == 3


def test_a_signal_saves_and_ends_with_its_own_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", str(DIGITS), "--out", str(tmp_path), *SHORT, *BAND, "--seeds", "1"]
    begun = tmp_path / "seed_0" / "recipe.yaml"  # written before the first step

    def send() -> None:
        while not begun.exists():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    assert main(words) == 75

    sender.join()
    assert re.search(r"saved epoch_000\d_step_0000\d\d after SIGTERM", capsys.readouterr().err)
    assert not (tmp_path / "reproduction.json").exists()
