"""launch/study: runs of a text file side by side, and their report; and the studies that come with it."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from types import ModuleType

import pytest

from addertrain.recipe import load_recipe
from tests.commands import run_command
from tests.source_tree import ROOT, launch_module

STUDIES = sorted((ROOT / "recipes" / "studies").glob("*.txt"))
DIGITS = "recipes/digits/lenet5bn.yaml"
KEYS = "--schedule.epochs 1 --train.recalibrate_batches 1 --data.global_batch_size 256"


@pytest.fixture(scope="module")
def study_runs() -> ModuleType:
    return launch_module("study_runs")


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.stem)
def test_every_line_of_a_study_becomes_its_runs_and_no_more(study: Path, study_runs: ModuleType) -> None:
    lines = [line.split() for line in study.read_text().splitlines() if not line.startswith("#")]

    runs = study_runs.runs_of(study.read_text(), study.name)

    expected = [
        (f"{name}-{seed}", recipe, int(seed), tuple(keys))
        for name, recipe, seeds, *keys in lines
        for seed in seeds.split(",")
    ]
    assert [(run.name, run.recipe, run.seed, run.keys) for run in runs] == expected
    assert len({run.name for run in runs}) == len(runs) > 0
    for run in runs:
        command, recipe, *keys = run.words
        assert command == "fit"
        assert load_recipe(ROOT / recipe, keys).train.seed == run.seed


def test_blanks_quotes_comments_and_line_ends_are_a_shells(study_runs: ModuleType) -> None:
    text = (
        "# a comment\r\n\n  # another\n"
        "a D 0,1  \t\r\n\"a b\" 'my recipe.yaml' 07 --data.root \"/pictures of 'mine'/x\" --name a#b \nc D 2"
    )

    runs = study_runs.runs_of(text, "s.txt")

    assert [(run.name, run.recipe, run.seed, run.keys) for run in runs] == [
        ("a-0", "D", 0, ()),
        ("a-1", "D", 1, ()),
        ("a b-7", "my recipe.yaml", 7, ("--data.root", "/pictures of 'mine'/x", "--name", "a#b")),
        ("c-2", "D", 2, ()),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("../x D 0", "line 1: expected a name for a folder, without /"),
        ("a/b D 0", "got 'a/b'"),
        (".. D 0", "got '..'"),
        ("-x D 0", "got '-x'"),
        ("'' D 0", "got ''"),
        ("a D 0\nb D 0\na D 1", "got 'a' in lines 1 and 3"),
        ("a D 0,0", "expected every seed once, got 0,0"),
        ("a D 0,00", "expected every seed once"),
        ("a D 0, 1", "seeds such as 0,1,2, and keys; got: a D 0,"),
        ("a D -1", "seeds such as 0,1,2"),
        ("a", "got: a"),
        ("a D 0 --x 'y", "got: No closing quotation; close the quotes"),
        ("a D 0 --train.seed=3", "got --train.seed=3, which the study itself sets"),
        ("a D 0 --out here", "got --out, which the study itself sets"),
        ("a D 0 --name x\0y", "got a NUL"),
        ("\n  \n#\n", "expected a line for each setting, got none"),
    ],
)
def test_a_line_that_says_nothing_sensible_is_named(
    study_runs: ModuleType, text: str, complaint: str
) -> None:
    with pytest.raises(study_runs.StudyError) as error:
        study_runs.runs_of(text, "s.txt")

    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_study_trains_its_seeds_reports_them_and_goes_on_after_a_failure(tmp_path: Path) -> None:
    study, out = tmp_path / "study.txt", tmp_path / "out"
    plain = f"plain {DIGITS} 0,1 {KEYS} "
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


def test_a_signal_reaches_the_runs_and_the_same_command_goes_on(tmp_path: Path) -> None:
    study, out = tmp_path / "study.txt", tmp_path / "out"
    study.write_text(f"long {DIGITS} 0,1 --schedule.epochs 999\n")
    command = ("launch/study", str(study), "--out", str(out), "--jobs", "1")
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while not any((out / "long-0" / "checkpoints").glob("epoch_*")):
            assert process.poll() is None
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=60)

    assert process.returncode == 75
    first, last = said.splitlines()
    assert first.startswith("launch/study: long-0 ended: addertrain: saved epoch_")
    assert last == "launch/study: received a signal to end; the same command resumes"
    assert not (out / "long-1").exists()


def test_a_module_of_the_users_in_the_working_folder_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('the random of somebody else')\n")
    (tmp_path / "study.txt").write_text("a absent.yaml 0\n")

    result = run_command("bash", "-c", f"cd '{tmp_path}' && '{ROOT}/launch/study' study.txt --jobs 1")

    assert result.returncode == 1
    assert "a-0 failed: addertrain: error: absent.yaml: expected a recipe file" in result.stderr
