"""A report of small runs: numbers equal their sources, pictures show something, the page stands alone."""

import io
import json
import re
import shutil
import statistics
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from addertrain.checkpoint import CheckpointError
from addertrain.cli import main
from addertrain.cli import report as report_command
from addertrain.errors import RunError
from addertrain.models import build_model, count_operations
from addertrain.recipe import load_recipe
from addertrain.report import build as build_module
from addertrain.report.build import Written, write_report
from addertrain.report.document import Absent, Section
from addertrain.report.events import read_curves
from addertrain.report.markdown import markdown_table
from addertrain.report.runs import read_runs
from addertrain.report.sections.activity import activity
from addertrain.report.sections.features import features
from addertrain.report.sections.gradients import gradients
from addertrain.report.study import Study
from addertrain.report.style import house_style
from addertrain.train.run_directory import RunDirectory
from tests.report.made_up_runs import made_up_run
from tests.source_tree import ROOT
from tests.train.small_runs import rewind, short_recipe

LAYERS = ("conv1", "conv2", "conv3", "fc1", "fc2")


@pytest.fixture(scope="module")
def folder(trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of all trained runs; not to be changed."""
    out = tmp_path_factory.mktemp("report") / "report"
    written = write_report(list(trained.values()), out)
    assert written.page == out / "index.html"
    return out


@pytest.fixture(scope="module")
def numbers(folder: Path) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return plain


def _table(numbers: dict[str, Any], section: str, key: str) -> dict[str, Any]:
    (found,) = [one for one in numbers["sections"] if one["key"] == section]
    (table,) = [one for one in found["tables"] if one["key"] == key]
    return table


def _read(*paths: Path) -> Study:
    return Study(read_runs(paths, lambda line: None))


def _summaries(*runs: Path) -> list[dict[str, Any]]:
    return [json.loads((run / "summary.json").read_text()) for run in runs]


def test_accuracies_are_the_summaries(numbers: dict[str, Any], trained: dict[str, Path]) -> None:
    rows = {row["recipe"]: row for row in _table(numbers, "accuracy", "accuracy_digits")["rows"]}
    top1 = [summary["top1"] for summary in _summaries(trained["adder_0"], trained["adder_1"])]

    adder = rows["digits-lenet5bn"]
    assert adder["top1"] == {
        "mean": pytest.approx(statistics.fmean(top1)),
        "std": pytest.approx(statistics.stdev(top1)),
        "n": 2,
    }
    assert rows["digits-conv"]["top1"]["mean"] == _summaries(trained["conv"])[0]["top1"]
    assert rows["digits-conv"]["top1"]["std"] is None
    assert [rows[name]["kind"] for name in ("digits-lenet5bn", "digits-conv")] == ["adder", "convolution"]


def test_operations_are_the_networks(numbers: dict[str, Any]) -> None:
    rows = {row["recipe"]: row for row in _table(numbers, "accuracy", "accuracy_digits")["rows"]}

    for recipe, kind in (("digits-lenet5bn", "adder"), ("digits-conv", "conv")):
        count = count_operations(build_model("lenet5bn", kind=kind, num_classes=10), (1, 32, 32))
        assert rows[recipe]["multiplications"] == count.multiplications
        assert rows[recipe]["additions"] == count.additions


def test_first_gradient_norms_are_those_of_the_training(
    numbers: dict[str, Any], trained: dict[str, Path]
) -> None:
    rows = {row["layer"]: row for row in _table(numbers, "gradients", "gradients_lenet5bn_digits")["rows"]}
    curves = [read_curves(trained[name]) for name in ("adder_0", "adder_1")]

    assert set(rows) == set(LAYERS)
    for layer in LAYERS:
        first = [curve[f"grad_norm/{layer}"] for curve in curves]
        assert [curve.steps[0] for curve in first] == [1, 1]
        assert rows[layer]["adder"]["mean"] == pytest.approx(
            statistics.fmean(curve.values[0] for curve in first), rel=1e-4
        )
        assert rows[layer]["ratio"] > 10  # the paper's Table 1: convolutions' gradients are far larger


def test_curves_end_where_the_runs_end(numbers: dict[str, Any], trained: dict[str, Path]) -> None:
    rows = {row["recipe"]: row for row in _table(numbers, "curves", "curves_lenet5bn_digits")["rows"]}

    (summary,) = _summaries(trained["ilr"])
    assert rows["digits-ilr"]["top1"]["mean"] == pytest.approx(summary["top1"], abs=1e-4)
    assert rows["digits-ilr"]["scheme"] == "increased rate × 100, full-precision gradient"
    assert rows["digits-lenet5bn"]["n"] == 2


def test_weights_and_their_rms_agree(numbers: dict[str, Any]) -> None:
    weights = {row["layer"]: row for row in _table(numbers, "weights", "weights_digits-lenet5bn")["rows"]}
    over_time = {row["layer"]: row for row in _table(numbers, "dynamics", "dynamics_digits-lenet5bn")["rows"]}
    last = _table(numbers, "dynamics", "dynamics_digits-lenet5bn")["columns"][-1]

    assert last["label"] == "epoch 2"
    for layer in LAYERS:
        assert weights[layer]["rms"]["mean"] == pytest.approx(over_time[layer][last["key"]], rel=1e-4)
    assert "balance, by the formula" in over_time


def test_shares_of_weights_add_up(numbers: dict[str, Any]) -> None:
    for row in _table(numbers, "activity", "activity_digits-lenet5bn")["rows"]:
        parts = [row[key]["mean"] for key in ("inside", "below", "above")]
        assert sum(parts) == pytest.approx(100.0)
        assert 0 < row["inside"]["mean"] < 100


def test_every_picture_decodes_and_shows_something(folder: Path, numbers: dict[str, Any]) -> None:
    files = [picture["file"] for one in numbers["sections"] for picture in one["pictures"]]

    assert len(files) >= 9
    assert {path.name for path in folder.glob("*.png")} == set(files)
    for name in files:
        with Image.open(io.BytesIO((folder / name).read_bytes())) as picture:
            pixels = np.asarray(picture.convert("L"), dtype=float)
        assert picture.width >= 1000
        assert pixels.std() > 5, name
        root = ET.fromstring((folder / name).with_suffix(".svg").read_text(encoding="utf-8"))
        assert root.tag.endswith("svg")


class _Links(HTMLParser):
    """Every tag, every address, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone(folder: Path, numbers: dict[str, Any]) -> None:
    html = (folder / "index.html").read_text(encoding="utf-8")
    page = _Links()
    page.feed(html)
    num_pictures = sum(len(one["pictures"]) for one in numbers["sections"])

    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert sum(address.startswith("data:") for address in page.addresses) == num_pictures
    assert not re.search(r"https?://|url\(|@import", html)
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_everything_says_what_made_it(folder: Path, numbers: dict[str, Any]) -> None:
    page = _Links()
    page.feed((folder / "index.html").read_text(encoding="utf-8"))

    for one in numbers["sections"]:
        assert one["source"], one["key"]
        assert one["title"] in page.text
        assert all(source["text"] in page.text for source in one["source"])
    text = numbers["sections"][0]["source"][0]["text"]
    assert text == "recipe digits-lenet5bn, n = 2 (seeds 0, 1), runs adder_0, adder_1"


def test_every_session_says_how_it_came_about(numbers: dict[str, Any]) -> None:
    rows = _table(numbers, "runs", "sessions")["rows"]

    assert [row["run"] for row in rows] == ["adder_0", "adder_1", "conv", "ilr"]
    for row in rows:
        assert (row["session"], row["ranks"], row["machines"]) == (1, 1, 1)
        assert (row["launcher"], row["strategy"]) == ("none", "single process")
        assert row["command"] == "a Python program"


def test_markdown_is_made_from_the_json(folder: Path, numbers: dict[str, Any]) -> None:
    text = (folder / "report.md").read_text(encoding="utf-8")

    for one in numbers["sections"]:
        for table in one["tables"]:
            assert markdown_table(table) in text


def test_what_is_missing_is_named(numbers: dict[str, Any]) -> None:
    (absent,) = numbers["absent"]

    assert "Figure 1" in absent["title"]
    assert "recipes/mnist/lenetplusplus.yaml" in absent["reason"]
    assert (ROOT / "recipes" / "mnist" / "lenetplusplus.yaml").exists()


def test_two_features_are_drawn(tmp_path: Path) -> None:
    recipe = short_recipe("--model.name=lenet++", "--train.recalibrate_batches=0")
    study = _read(made_up_run(tmp_path / "run", recipe))

    with house_style():
        section = features(study)

    assert isinstance(section, Section)
    assert "n = 1 (seed 0)" in section.source[0].text
    seen = study.observation(study.groups[0].runs[0])
    assert seen.last_input is not None
    assert seen.last_input.shape == (360, 2)
    assert len(seen.labels) == 360


def test_without_data_the_rest_is_there(tmp_path: Path) -> None:
    recipe = load_recipe(ROOT / "recipes" / "mnist" / "lenet5bn.yaml", [f"--data.root={tmp_path / 'gone'}"])
    out = tmp_path / "report"

    written = write_report([made_up_run(tmp_path / "run", recipe)], out)

    reasons = [absent.reason for absent in written.absent]
    assert sum("mnist: expected its files in" in reason for reason in reasons) == 2
    assert (out / "filters_mnist-lenet5bn.png").exists()
    assert not (tmp_path / "gone").exists()


def test_data_root_replaces_the_recipes(tmp_path: Path) -> None:
    recipe = load_recipe(ROOT / "recipes" / "mnist" / "lenet5bn.yaml")
    groups = read_runs([made_up_run(tmp_path / "run", recipe)], lambda line: None)

    for section in (gradients, activity):
        absent = section(Study(groups, data_root=str(tmp_path)))
        assert isinstance(absent, Absent)
        assert str(tmp_path / "MNIST") in absent.reason


def test_an_unfinished_run_counts_in_no_mean(trained: dict[str, Path], tmp_path: Path) -> None:
    unfinished = Path(shutil.copytree(trained["adder_1"], tmp_path / "unfinished"))
    rewind(unfinished, to_epoch=1)

    (group,) = _read(trained["adder_0"], unfinished).groups

    assert [run.epochs for run in group.runs] == [2, 1]
    assert [run.seed for run in group.finished] == [0]
    assert group.whole == group.finished
    assert [run.label for run in group.runs] == ["adder_0", "unfinished"]


def test_recipes_of_one_name_are_told_apart(trained: dict[str, Path], tmp_path: Path) -> None:
    other = made_up_run(tmp_path / "other", short_recipe("--schedule.epochs=2", "--optim.lr=0.05"))

    labels = [group.label for group in _read(trained["adder_0"], other).groups]

    assert labels == ["digits-lenet5bn", "digits-lenet5bn (optim.lr 0.05)"]


def _damage(run: Path) -> None:
    for checkpoint in RunDirectory(run).store.newest_first():
        with (checkpoint / "model.safetensors").open("r+b") as file:
            file.seek(200)
            file.write(b"\xff\xff\xff\xff")


def test_a_damaged_checkpoint_stops_the_report(trained: dict[str, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained["conv"], tmp_path / "damaged"))
    _damage(run)

    with pytest.raises(CheckpointError, match="does not match its checksum"):
        write_report([run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_event_files_are_mentioned(trained: dict[str, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained["conv"], tmp_path / "run"))
    for file in run.glob("events.*"):
        file.write_bytes(file.read_bytes()[:200])
    warnings: list[str] = []

    (group,) = read_runs([run], warnings.append)

    assert warnings == [f"{run}: expected 2 evaluations in the event files, got 0, so its curves have gaps"]
    assert group.runs[0].steps_per_epoch is None


def test_a_summary_of_other_weights_is_noticed(trained: dict[str, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained["conv"], tmp_path / "other"))
    shutil.copy(trained["adder_0"] / "summary.json", run)

    with pytest.raises(RunError, match="got that of other weights"):
        write_report([run], tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["{tmp}/nothing"], 1, "expected the directory of a run, got nothing there"),
        (["{tmp}"], 1, "got a folder without recipe.yaml"),
        (["{run}", "{run}"], 2, "expected each run once, got it twice"),
        (["{run}", "--out", "{tmp}"], 2, "expected a new folder or an earlier report, got other files"),
        (["{run}", "--optim.lr", "0.1"], 2, "expected --data.root DIR as the only key of a recipe"),
        ([], 2, "arguments are required: RUN"),
    ],
)
def test_bad_words_are_one_line(
    trained: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    complaint: str,
) -> None:
    (tmp_path / "file").write_text("something else")
    places = {"tmp": str(tmp_path), "run": str(trained["conv"])}

    assert main(["report", *(word.format(**places) for word in words)]) == code

    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize("words", [["--data.root", "a=b"], ["--data.root=a=b"]])
def test_the_name_of_a_data_root_may_hold_an_equals_sign(words: list[str]) -> None:
    assert report_command._data_root(words) == "a=b"


def test_a_report_that_fails_leaves_the_earlier_one(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    monkeypatch.setattr(build_module, "_SECTIONS", (build_module.overview,))
    write_report([trained["conv"]], out)
    before = (out / "index.html").read_bytes()

    def fails(study: Study) -> Section:
        raise RunError("no")

    monkeypatch.setattr(build_module, "_SECTIONS", (build_module.overview, fails))
    with pytest.raises(RunError):
        write_report([trained["adder_0"]], out)
    assert (out / "index.html").read_bytes() == before

    monkeypatch.setattr(build_module, "_SECTIONS", (build_module.overview,))
    written: Written = write_report([trained["adder_0"]], out)
    assert written.page.read_bytes() != before
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "report.json", "report.md"]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_without_matplotlib_it_says_so(
    trained: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("addertrain.report.", "matplotlib."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    assert main(["report", str(trained["conv"])]) == 1

    error = capsys.readouterr().err
    assert "pip install 'addertrain[report]'" in error
    assert error.count("\n") == 1
