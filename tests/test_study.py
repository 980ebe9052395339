"""launch/study: runs of a text file side by side, and their report; and the studies that come with it."""

import json
from pathlib import Path

import pytest

from addertrain.recipe import load_recipe
from tests.commands import run_command
from tests.source_tree import ROOT

STUDIES = sorted((ROOT / "recipes" / "studies").glob("*.txt"))
DIGITS = "recipes/digits/lenet5bn.yaml"
KEYS = "--schedule.epochs 1 --train.recalibrate_batches 1 --data.global_batch_size 256"


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.stem)
def test_every_setting_of_a_study_is_a_recipe_and_has_a_name_of_its_own(study: Path) -> None:
    lines = [line.split() for line in study.read_text().splitlines() if not line.startswith("#")]
    names = [name for name, *_ in lines]

    for _, recipe, _, *keys in lines:
        load_recipe(ROOT / recipe, keys)
    assert len(set(names)) == len(names) > 0


def test_a_study_trains_its_seeds_reports_them_and_goes_on_after_a_failure(tmp_path: Path) -> None:
    study, out = tmp_path / "study.txt", tmp_path / "out"
    plain = f"plain {DIGITS} 0,1 {KEYS}"
    study.write_text(f"# two settings\n{plain}\nwrong {DIGITS} 0 {KEYS} --optim.lr nonsense\n")

    failed = run_command("launch/study", str(study), "--out", str(out))

    assert failed.returncode == 1
    assert "wrong-0 failed" in failed.stderr
    assert "optim.lr" in failed.stderr
    assert (out / "report" / "index.html").exists()

    trained = {path: path.stat().st_mtime_ns for path in out.glob("plain-*/summary.json")}
    study.write_text(plain)  # a last line without its end is one, too
    again = run_command("launch/study", str(study), "--out", str(out))

    assert again.returncode == 0, again.stderr
    assert {path.parent.name for path in trained} == {"plain-0", "plain-1"}
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    report = json.loads((out / "report" / "report.json").read_text())
    assert "from 2 run(s) of digits-lenet5bn" in report["made"]


@pytest.mark.parametrize(
    ("lines", "words", "expected"),
    [
        ("# nothing yet\n", (), "expected a line for each setting, got none"),
        (f"plain {DIGITS} first\n", (), "expected a name, a recipe, seeds such as 0,1,2"),
        (f"plain {DIGITS} 0\n", ("--jobs", "many"), "--jobs: expected a number above 0, got many"),
    ],
)
def test_a_study_that_says_nothing_sensible_starts_nothing(
    tmp_path: Path, lines: str, words: tuple[str, ...], expected: str
) -> None:
    study = tmp_path / "study.txt"
    study.write_text(lines)

    result = run_command("launch/study", str(study), "--out", str(tmp_path / "out"), *words)

    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert expected in result.stderr
    assert not (tmp_path / "out").exists()
