import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from addertrain.checkpoint.files import write_checkpoint
from addertrain.errors import CheckpointError, RunError
from addertrain.recipe import Recipe
from addertrain.train.processes import World
from addertrain.train.recipe_record import recipe_from_record, recipe_to_record
from addertrain.train.run_directory import RunDirectory
from addertrain.train.session import session_record
from tests.train.small_runs import short_recipe
from tests.train.test_resume import SUMMARY


def _checkpoint(path: Path, recipe: Recipe) -> Path:
    tensors: dict[str, dict[str, torch.Tensor]] = {"model": {}, "optimizer": {}, "rank_buffers": {}}
    write_checkpoint(path, tensors, {"epoch": 1, "recipe": recipe_to_record(recipe)})
    return path


def test_a_summary_comes_back(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_summary(SUMMARY)

    assert run.read_summary() == SUMMARY


def test_what_is_not_a_number_is_null_in_the_file(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_summary(replace(SUMMARY, loss=math.nan))

    assert json.loads((tmp_path / "summary.json").read_text())["loss"] is None
    summary = run.read_summary()
    assert summary is not None
    assert math.isnan(summary.loss)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"top1": 3}'])
def test_a_foreign_summary_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_text(text)

    with pytest.raises(RunError, match="expected the summary of a run"):
        RunDirectory(tmp_path).read_summary()


def test_every_start_is_listed(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.open(short_recipe(), session_record(short_recipe(), World(), None))
    elsewhere = _checkpoint(tmp_path / "epoch_0001_step_000005", short_recipe("--data.threads=3"))
    run.open(short_recipe(), session_record(short_recipe(), World(size=2, local_size=2), elsewhere))

    sessions = json.loads((tmp_path / "environment.json").read_text())["sessions"]

    assert [session["resumed_from"] for session in sessions] == [None, "epoch_0001_step_000005"]
    assert [session["world_size"] for session in sessions] == [1, 2]
    assert {"addertrain", "python", "torch", "lightning"} <= sessions[0]["versions"].keys()
    assert [session["changed"] for session in sessions] == [[], ["data.threads: 3 there, None here"]]
    assert sessions[0]["operators"]


def test_the_recipe_is_written_out_in_full(tmp_path: Path) -> None:
    recipe = short_recipe("--optim.eta=0.1")
    run = RunDirectory(tmp_path)
    run.open(recipe, session_record(recipe, World(), None))

    assert run.read_recipe() == recipe


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RunError, match=r"file/run: expected a folder that can be written.*--out"):
        RunDirectory(tmp_path / "file" / "run").open(
            short_recipe(), session_record(short_recipe(), World(), None)
        )


def test_a_recipe_survives_its_record() -> None:
    recipe = short_recipe("--expected.top1=98.5")

    record = json.loads(json.dumps(recipe_to_record(recipe)))

    assert recipe_from_record(record, source="here") == recipe


def test_a_checkpoint_without_a_recipe_says_so() -> None:
    with pytest.raises(CheckpointError, match="here: expected a recipe"):
        recipe_from_record(None, source="here")


def test_a_record_with_unknown_keys_is_refused() -> None:
    record = recipe_to_record(short_recipe())
    record["optim"]["lars"] = True

    with pytest.raises(CheckpointError, match=r"here: .*lars.*use the version that wrote it"):
        recipe_from_record(record, source="here")
