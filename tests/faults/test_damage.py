"""Damaged checkpoints: found before anything of them is loaded, named, and the one before is used."""

import ast
import random
import shutil
from pathlib import Path

import pytest

from addertrain.checkpoint import CheckpointError
from addertrain.checkpoint.files import read_tensors
from addertrain.checkpoint.store import locate_checkpoint
from addertrain.cli import main
from addertrain.train.resume import choose_start
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory
from tests.faults.damage import DAMAGES, Damage, hostile_pickle, one_bit_flipped, pipe_for_a_file
from tests.source_tree import python_files
from tests.train.small_runs import DIGITS, SHORT, assert_same_bits, final_weights, short_recipe

pytestmark = pytest.mark.faults


def _cut_short(finished: Path, run: Path) -> tuple[Path, Path, Path]:
    """The run as if its process had died after the last checkpoint; all of them, newest first."""
    shutil.copytree(finished, run)
    (run / "summary.json").unlink()
    newest, before, first = RunDirectory(run).store.newest_first()
    return newest, before, first


def _look_at_damaged(finished: Path, folder: Path, num_damaged: int) -> None:
    for number in range(num_damaged):
        rng, damage = random.Random(number), DAMAGES[number % len(DAMAGES)]
        run = folder / f"{number}"
        newest, before, _ = _cut_short(finished, run)
        damage(newest, before, rng)
        where = f"{number}: {damage.__name__}"
        warnings: list[str] = []

        start = choose_start(short_recipe(), RunDirectory(run), "auto", warnings.append)

        assert start.checkpoint == before, where
        (warning,) = warnings
        assert f"damaged checkpoint {newest}: " in warning, where
        assert warning.endswith(f"; using the earlier {before.name} instead"), where
        assert "\n" not in warning, where
        assert locate_checkpoint(run, warnings.append) == before, where
        assert not (newest.parent / "harm").exists(), where
        shutil.rmtree(run)


def test_every_damaged_checkpoint_is_named_and_passed_over(finished: Path, tmp_path: Path) -> None:
    _look_at_damaged(finished, tmp_path, 32)


@pytest.mark.long
def test_two_hundred_damaged_checkpoints(finished: Path, tmp_path: Path) -> None:
    _look_at_damaged(finished, tmp_path, 208)


@pytest.mark.parametrize("damage", [one_bit_flipped, hostile_pickle])
def test_the_command_goes_on_from_the_one_before(
    damage: Damage, finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    newest, before, _ = _cut_short(finished, run)
    damage(newest, before, random.Random(0))

    assert main(["fit", str(DIGITS), *SHORT, "--out", str(run)]) == 0

    said = capfd.readouterr()
    (warning,) = said.err.splitlines()
    assert warning.startswith(f"addertrain: warning: damaged checkpoint {newest}: ")
    assert f"resuming {before.name}" in said.out
    assert not (newest.parent / "harm").exists()
    assert_same_bits(final_weights(run), final_weights(finished))


def test_where_every_checkpoint_is_damaged_one_line_names_them(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    checkpoints = _cut_short(finished, run)
    for checkpoint, damage in zip(
        checkpoints, (pipe_for_a_file, hostile_pickle, one_bit_flipped), strict=True
    ):
        damage(checkpoint, checkpoint, random.Random(1))

    assert main(["fit", str(DIGITS), *SHORT, "--out", str(run)]) == 1
    assert main(["evaluate", str(run)]) == 1
    assert main(["evaluate", str(checkpoints[1])]) == 1

    first, second, third = capfd.readouterr().err.splitlines()
    for line in (first, second):
        assert "expected an intact checkpoint, got only damaged ones (" in line
        assert all(path.name in line for path in checkpoints)
    assert checkpoints[1].name in third


def test_a_file_that_a_manifest_does_not_name_is_not_read(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    newest, _, _ = _cut_short(finished, run)
    (newest / "average.safetensors").write_bytes(b"not ours")

    assert choose_start(short_recipe(), RunDirectory(run), "auto", pytest.fail).checkpoint == newest
    assert fit(short_recipe(), run).steps == 15


def test_what_a_manifest_vouches_for_is_no_pickle_either(finished: Path, tmp_path: Path) -> None:
    newest, before, _ = _cut_short(finished, tmp_path / "run")
    (newest / "model.safetensors").unlink()
    hostile_pickle(newest, before, random.Random(0))

    for name in ("model", "optimizer", "rank_buffers"):
        file = newest / f"{name}.safetensors"
        if not file.exists() or file.read_bytes()[:1] == b"\x80":
            with pytest.raises(CheckpointError, match=f"{name}.safetensors cannot be read"):
                read_tensors(newest, name)
    assert not (newest.parent / "harm").exists()


def test_nothing_unpickles_a_file() -> None:
    """torch.load says weights_only=True; pickle itself is used in one file, which holds it to a few names."""
    calls = [
        (path.name, ast.unparse(node.func), [ast.unparse(word) for word in node.keywords])
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]

    loads = [(file, words) for file, name, words in calls if name == "torch.load"]
    assert loads
    assert all("weights_only=True" in words for _, words in loads), loads
    unpickling = {file for file, name, _ in calls if name.split(".")[0] in ("pickle", "marshal", "shelve")}
    assert unpickling <= {"safe_pickle.py"}
