"""docs/extending.md: every example runs from a folder of its own, with nothing but the installed package."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from addertrain.checkpoint.files import read_manifest
from addertrain.train.run_directory import RunDirectory
from tests.source_tree import ROOT

PAGE = ROOT / "docs" / "extending.md"
# One process for all commands: each start of Python takes seconds.
SESSION = """
import contextlib, io, json, runpy, sys
from addertrain.cli import main

def run(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    answers[" ".join(words)] = [code, out.getvalue(), err.getvalue()]

answers = {}
for words in json.loads(sys.argv[1]):
    if words[0].endswith(".py"):
        runpy.run_path(words[0], run_name="__main__")
    elif words[0] == "append":
        with open(words[1], "a") as file:
            file.write(words[2])
    else:
        run(*words)
json.dump(answers, open("answers.json", "w"))
"""
FIT = "fit own.yaml --out runs/cli --model.args.depth 3"
EARLIER = "runs/cli/checkpoints/epoch_0001_step_000004"
RESUME = f"fit own.yaml --out runs/more --model.args.depth 3 --resume {EARLIER}"
WRONG = "fit own.yaml --out runs/wrong"
COMMANDS = [
    "train.py",
    "check_operator.py",
    "plan own.yaml",
    FIT,
    "evaluate runs/cli",
    "ckpt convert runs/cli net.safetensors",
    f"{WRONG} --model.args.wdith 3",
    f"{WRONG} --model.name mynets:narow",
    f"{WRONG} --model.name lenet5bn --model.args {{}}",
    "append mynets.py #changed",
    RESUME,
    "evaluate runs/more",
    "fit own.yaml --out runs/groups --model.name mygroups:slow_head",
]


def examples() -> dict[str, str]:
    """The files of the page by their names, which their first lines give."""
    found = re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    return dict(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all examples lie and all commands have run."""
    folder = tmp_path_factory.mktemp("own")
    for name, text in examples().items():
        (folder / name).write_text(text)
    (folder / "session.py").write_text(SESSION)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ADDERTRAIN"))}
    result = subprocess.run(
        [sys.executable, "session.py", json.dumps([each.split() for each in COMMANDS])],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, tuple[int, str, str]]:
    """The exit code of each command, what it said, and what it complained of."""
    plain = json.loads((folder / "answers.json").read_text())
    return {command: (code, out, err) for command, (code, out, err) in plain.items()}


def test_a_network_and_a_data_set_of_ones_own_are_trained_evaluated_and_converted(
    folder: Path, answers: dict[str, tuple[int, str, str]]
) -> None:
    fitted, evaluated, converted = (
        answers[each] for each in (FIT, "evaluate runs/cli", "ckpt convert runs/cli net.safetensors")
    )

    assert (fitted[0], evaluated[0], converted[0]) == (0, 0, 0), answers
    summary = json.loads((folder / "runs/cli/summary.json").read_text())
    assert f"{summary['top1']:.2f}" in evaluated[1]
    assert "128 for training, 64 for testing, (3, 16, 16)" in answers["plan own.yaml"][1]
    with safe_open(folder / "net.safetensors", framework="pt") as file:
        assert "layers.2.weight" in file.keys()  # noqa: SIM118 (safetensors has no other way)


def test_what_is_ones_own_is_recorded(folder: Path) -> None:
    run = folder / "runs" / "stripes"
    (session,) = json.loads((run / "environment.json").read_text())["sessions"]
    (of_summary,) = json.loads((run / "summary.json").read_text())["sessions"]
    newest = RunDirectory(run).store.newest_first()[0]
    (of_manifest,) = read_manifest(newest)["sessions"]

    assert session["own_code"] == of_summary["own_code"] == of_manifest["own_code"]
    records = {(each["part"], each["name"]): each for each in session["own_code"]}
    assert list(records) == [
        ("model.name", "mynets:narrow"), ("data.name", "mydata:stripes"), ("callback", "mycallback:Pace"),
        ("logger", "mylogger:Lines"),
    ]  # fmt: skip
    sha256 = hashlib.sha256((folder / "mydata.py").read_bytes()).hexdigest()
    assert records["data.name", "mydata:stripes"]["sha256"] == sha256
    assert records["callback", "mycallback:Pace"]["state_key"] == "Pace"


def test_a_callback_and_a_logger_of_ones_own_take_part(folder: Path) -> None:
    newest = RunDirectory(folder / "runs" / "stripes").store.newest_first()[0]
    lines = (folder / "lines.txt").read_text().splitlines()

    assert read_manifest(newest)["foreign"]["callbacks"]["Pace"] == {"num_steps": 8}
    assert lines[0] == "recipe stripes-narrow"
    tags = {line.split()[1] for line in lines[1:]}
    assert {"accuracy/val_top1", "val_top1", "train_loss", "pace"} <= tags


def test_a_resumption_with_other_code_is_told_and_recorded(
    folder: Path, answers: dict[str, tuple[int, str, str]]
) -> None:
    code, _, err = answers[RESUME]

    assert code == 0, err
    assert (
        len([line for line in err.splitlines() if "model.name mynets:narrow: its source file" in line]) == 1
    )
    first, second = json.loads((folder / "runs/more/summary.json").read_text())["sessions"]
    hashes = [each["own_code"][0]["sha256"] for each in (first, second)]
    assert hashes[0] != hashes[1]
    assert "its source file" not in answers["evaluate runs/more"][2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--model.args.wdith 3",
            "args.wdith: expected an argument of mynets:narrow, got wdith; did you",
        ),
        ("--model.name mynets:narow", "expected a function narow in mynets, got none; did you mean narrow?"),
        ("--model.name lenet5bn --model.args {}", "expected images of 1 channels for model.name lenet5bn"),
    ],
)
def test_a_mistake_is_one_line_and_binds_no_folder(
    words: str, message: str, folder: Path, answers: dict[str, tuple[int, str, str]]
) -> None:
    code, _, err = answers[f"{WRONG} {words}"]

    assert code in (1, 2)
    assert message in err
    assert len(err.splitlines()) == 1
    assert not RunDirectory(folder / "runs/wrong").is_bound


def test_a_network_groups_its_parameters(folder: Path, answers: dict[str, tuple[int, str, str]]) -> None:
    assert answers[COMMANDS[-1]][0] == 0, answers[COMMANDS[-1]]
    newest = RunDirectory(folder / "runs" / "groups").store.newest_first()[0]
    groups = read_manifest(newest)["optimizer"]["param_groups"]

    assert [group["initial_lr"] for group in groups] == [0.1, 0.1, 0.01]
    assert groups[2]["params"] == ["classes.weight", "classes.bias"]
