import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from addertrain.checkpoint.files import write_checkpoint
from addertrain.checkpoint.store import locate_checkpoint
from addertrain.errors import CheckpointError, RunError, UsageError
from addertrain.recipe import Recipe, recipe_to_yaml
from addertrain.train.processes import World
from addertrain.train.recipe_record import recipe_to_record
from addertrain.train.resume import Start, choose_start
from addertrain.train.run_directory import RunDirectory, Summary
from addertrain.train.session import session_record
from addertrain.train.weights import weights_sha256
from tests.train.small_runs import short_recipe

SUMMARY = Summary(
    top1=98.5, top5=100.0, loss=0.1, epochs=3, steps=15, images_per_second=1e3, seconds=9.0, world_size=1,
    seed=0, recipe="digits-lenet5bn", weights_sha256=weights_sha256({}),
)  # fmt: skip


@pytest.fixture
def recipe() -> Recipe:
    return short_recipe()


@pytest.fixture
def run(tmp_path: Path, recipe: Recipe) -> RunDirectory:
    """A run with checkpoints after epochs 1 and 2."""
    result = RunDirectory(tmp_path / "run")
    result.open(recipe, session_record(recipe, World(), None))
    for epoch in (1, 2):
        _save(result, recipe, epoch)
    return result


def _save(run: RunDirectory, recipe: Recipe, epoch: int) -> Path:
    path = run.store.path_for(epoch=epoch, global_step=5 * epoch)
    tensors: dict[str, dict[str, torch.Tensor]] = {"model": {}, "optimizer": {}, "rank_buffers": {}}
    write_checkpoint(path, tensors, {"epoch": epoch, "recipe": recipe_to_record(recipe)})
    return path


def _silent(line: str) -> None:
    raise AssertionError(line)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_folder_starts_anew(tmp_path: Path, recipe: Recipe) -> None:
    assert choose_start(recipe, RunDirectory(tmp_path / "new"), "auto", _silent) == Start()
    assert choose_start(recipe, RunDirectory(tmp_path / "new"), "none", _silent) == Start()


def test_auto_takes_the_newest(run: RunDirectory, recipe: Recipe) -> None:
    assert choose_start(recipe, run, "auto", _silent).checkpoint == run.store.path_for(
        epoch=2, global_step=10
    )


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path: Path, recipe: Recipe) -> None:
    run = RunDirectory(tmp_path / "run")
    run.open(recipe, session_record(recipe, World(), None))

    assert choose_start(recipe, run, "auto", _silent) == Start()


def test_a_finished_run_has_nothing_left_to_do(run: RunDirectory, recipe: Recipe) -> None:
    run.write_summary(SUMMARY)

    assert choose_start(recipe, run, "auto", _silent) == Start(summary=SUMMARY)


def test_a_result_of_other_weights_is_not_believed(run: RunDirectory, recipe: Recipe) -> None:
    run.write_summary(replace(SUMMARY, weights_sha256="00"))

    with pytest.raises(RunError, match=r"summary\.json: expected the result of epoch_0002_step_000010, got"):
        choose_start(recipe, run, "auto", _silent)


def test_a_result_of_nobody_knows_which_recipe_is_not_believed(tmp_path: Path, recipe: Recipe) -> None:
    run = RunDirectory(tmp_path)
    run.write_summary(SUMMARY)

    with pytest.raises(
        RunError, match=r"summary\.json: expected recipe\.yaml or a checkpoint in the same folder"
    ):
        choose_start(recipe, run, "auto", _silent)


def test_a_result_of_another_recipe_is_not_believed(run: RunDirectory) -> None:
    run.write_summary(SUMMARY)

    with pytest.raises(UsageError, match=r"optim\.lr: 0\.1 there, 0\.02 here"):
        choose_start(short_recipe("--optim.lr=0.02"), run, "auto", _silent)


def test_a_finished_run_says_that_its_numbers_are_of_its_own_evaluation(run: RunDirectory) -> None:
    run.write_summary(SUMMARY)
    said: list[str] = []

    choose_start(short_recipe("--train.recalibrate_batches=0"), run, "auto", said.append)

    assert "train.recalibrate_batches: 2 there, 0 here" in said[0]


def test_checkpoints_without_their_recipe_are_compared_by_what_they_say(
    run: RunDirectory, recipe: Recipe, tmp_path: Path
) -> None:
    copy = RunDirectory(tmp_path / "copy")
    shutil.copytree(run.store.folder, copy.store.folder)

    with pytest.raises(UsageError, match=r"optim\.lr: 0\.1 there, 0\.01 here"):
        choose_start(short_recipe("--optim.lr=0.01"), copy, "auto", _silent)
    assert choose_start(recipe, copy, "auto", _silent).checkpoint is not None


def test_a_run_that_saved_nothing_binds_nobody(tmp_path: Path, recipe: Recipe) -> None:
    run = RunDirectory(tmp_path)
    run.open(recipe, session_record(recipe, World(), None))
    other = short_recipe("--optim.lr=0.02")

    assert choose_start(other, run, "auto", _silent) == choose_start(other, run, "none", _silent) == Start()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("recipe.yaml", "# my own notes\n{recipe}"),
        ("recipe.yaml", "name: mine"),
        ("environment.json", '{{"sessions": 5}}'),
        ("environment.json", "[1]"),
    ],
)
def test_a_file_of_somebodys_own_is_never_replaced(
    tmp_path: Path, recipe: Recipe, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text.format(recipe=recipe_to_yaml(recipe)))
    before = _files(tmp_path)

    with pytest.raises(UsageError, match=rf"{name}: expected no such file, or one of a run, .*another --out"):
        choose_start(recipe, RunDirectory(tmp_path), "auto", _silent)
    assert _files(tmp_path) == before


def test_comments_in_a_runs_recipe_survive_a_resumption(run: RunDirectory, recipe: Recipe) -> None:
    file = run.path / "recipe.yaml"
    file.write_text("# a note\n" + file.read_text())

    assert choose_start(recipe, run, "auto", _silent).checkpoint is not None
    run.open(recipe, session_record(recipe, World(), None))

    assert file.read_text().startswith("# a note\n")


def test_none_never_overwrites(run: RunDirectory, recipe: Recipe) -> None:
    before = _files(run.path)

    with pytest.raises(UsageError, match=r"got one that holds a run.*another --out"):
        choose_start(recipe, run, "none", _silent)
    assert _files(run.path) == before


def test_another_recipe_is_refused_with_the_keys(run: RunDirectory) -> None:
    other = short_recipe("--optim.lr=0.05", "--train.seed=3", "--schedule.epochs=4")

    with pytest.raises(UsageError) as caught:
        choose_start(other, run, "auto", _silent)

    message = str(caught.value)
    assert "optim.lr: 0.1 there, 0.05 here" in message
    assert "train.seed: 0 there, 3 here" in message
    assert "schedule.epochs: 3 there, 4 here" in message
    assert "data.name" not in message


def test_what_does_not_change_training_may_differ(run: RunDirectory) -> None:
    other = short_recipe(
        "--train.keep_checkpoints=2", "--expected.top1=99", "--data.root=elsewhere", "--train.strategy=ddp",
        "--train.recalibrate_batches=0", "--name=renamed", "--data.threads=4", "--data.timeout_seconds=900",
    )  # fmt: skip

    assert choose_start(other, run, "auto", _silent).checkpoint is not None


def test_a_named_checkpoint_starts_another_run(run: RunDirectory, recipe: Recipe, tmp_path: Path) -> None:
    named = run.store.path_for(epoch=1, global_step=5)

    start = choose_start(recipe, RunDirectory(tmp_path / "branch"), str(named), _silent)

    assert start.checkpoint == named


def test_the_end_of_a_run_is_no_beginning_of_another(
    run: RunDirectory, recipe: Recipe, tmp_path: Path
) -> None:
    _save(run, recipe, 3)

    with pytest.raises(UsageError, match=r"epoch_0003_step_000015: expected .* unfinished run.*--init-from"):
        choose_start(recipe, RunDirectory(tmp_path / "branch"), str(run.path), _silent)
    assert choose_start(recipe, run, str(run.path), _silent).checkpoint is not None


def test_a_named_run_means_its_newest(run: RunDirectory, recipe: Recipe, tmp_path: Path) -> None:
    start = choose_start(recipe, RunDirectory(tmp_path / "branch"), str(run.path), _silent)

    assert start.checkpoint == run.store.path_for(epoch=2, global_step=10)


def test_going_back_inside_a_run_is_refused(run: RunDirectory, recipe: Recipe) -> None:
    named = run.store.path_for(epoch=1, global_step=5)

    with pytest.raises(
        UsageError, match=r"later results than epoch_0001_step_000005, got epoch_0002_step_000010"
    ):
        choose_start(recipe, run, str(named), _silent)


def test_a_checkpoint_of_another_recipe_is_refused(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"epoch_0002.*optim.eta: 0.2 there, 0.1 here"):
        choose_start(
            short_recipe("--optim.eta=0.1"), RunDirectory(tmp_path / "branch"), str(run.path), _silent
        )


def test_a_named_damaged_checkpoint_is_an_error(run: RunDirectory, recipe: Recipe, tmp_path: Path) -> None:
    named = run.store.path_for(epoch=2, global_step=10)
    (named / "model.safetensors").unlink()

    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        choose_start(recipe, RunDirectory(tmp_path / "branch"), str(named), _silent)


@pytest.mark.parametrize("what", ["nothing", "file", "empty"])
def test_what_is_no_checkpoint_says_so(tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    if what == "file":
        path.write_text("")
    elif what == "empty":
        path.mkdir()

    with pytest.raises(CheckpointError, match=rf"{what}: expected"):
        locate_checkpoint(path, _silent)


def test_a_file_in_the_way_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "run").write_text("mine")

    with pytest.raises(UsageError, match="got a file"):
        choose_start(recipe, RunDirectory(tmp_path / "run"), "auto", _silent)
