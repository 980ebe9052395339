import json
import shlex
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from addertrain.checkpoint.files import read_manifest, read_tensors
from addertrain.data import ImageArrays, load_data
from addertrain.interchange import trained_network
from addertrain.recipe import load_recipe
from addertrain.train.module import AdderClassifier
from addertrain.train.run import evaluate, fit
from addertrain.train.run_directory import RunDirectory, Summary
from addertrain.train.trained import last_epoch
from addertrain.train.weights import weights_sha256
from tests.ranks import on_ranks
from tests.train.small_runs import assert_same_bits, final_weights, launched, rewind, short_recipe

SUMMARY_KEYS = [
    "top1", "top5", "loss", "epochs", "steps", "images_per_second", "seconds", "world_size", "seed", "recipe",
    "weights_sha256", "skipped_steps", "rollbacks", "checkpoint", "strategy", "sessions",
]  # fmt: skip


def _copy(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "copy"))


def _summary(run: Path) -> Summary:
    summary = RunDirectory(run).read_summary()
    assert summary is not None
    return summary


def test_a_run_directory_is_as_documented(finished: Path) -> None:
    names = {path.name for path in finished.iterdir() if not path.name.startswith("events.out.tfevents")}

    assert names == {"recipe.yaml", "environment.json", "checkpoints", "summary.json"}
    assert list(finished.glob("events.out.tfevents*"))
    assert load_recipe(finished / "recipe.yaml") == short_recipe()
    checkpoints = {path.name for path in (finished / "checkpoints").iterdir()}
    assert checkpoints == {
        "latest", "epoch_0001_step_000005", "epoch_0002_step_000010", "epoch_0003_step_000015",
    }  # fmt: skip
    assert (finished / "checkpoints" / "latest").read_text() == "epoch_0003_step_000015\n"


def test_the_summary_has_exactly_its_keys(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())

    assert list(summary) == SUMMARY_KEYS == [field.name for field in fields(Summary)]
    assert (summary["epochs"], summary["steps"], summary["world_size"], summary["seed"]) == (3, 15, 1, 0)
    assert summary["recipe"] == "digits-lenet5bn"
    assert summary["top1"] > 60  # three epochs of five steps; chance is 10
    assert summary["images_per_second"] > 0
    newest = finished / "checkpoints" / "epoch_0003_step_000015"
    assert summary["weights_sha256"] == weights_sha256(read_tensors(newest, "model"))


def test_a_run_records_how_it_came_about(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _copy(finished, tmp_path)
    rewind(run, to_epoch=2)
    monkeypatch.setattr("sys.argv", ["addertrain", "fit", "my recipe.yaml", "--out", "it's"])

    summary = fit(short_recipe("--data.threads=3"), run)

    manifest = read_manifest(run / "checkpoints" / summary.checkpoint)
    first, second = manifest["sessions"]
    assert summary.sessions == manifest["sessions"]
    assert (first["resumed_from"], second["resumed_from"]) == (None, "epoch_0002_step_000010")
    assert shlex.split(second["command"]) == ["addertrain", "fit", "my recipe.yaml", "--out", "it's"]
    assert second["changed"] == ["data.threads: None there, 3 here"]
    for session in (first, second):
        assert (session["strategy"], session["world_size"], session["launcher"]) == (
            "single process",
            1,
            None,
        )
    assert manifest["data"]["train"]["images"] == 1437


def test_a_manifest_says_where_the_run_stood(finished: Path) -> None:
    manifest = read_manifest(finished / "checkpoints" / "epoch_0002_step_000010")

    assert (manifest["epoch"], manifest["batches"], manifest["global_step"]) == (2, 0, 10)
    assert (manifest["seed"], manifest["world_size"]) == (0, 1)
    assert manifest["recipe"]["optim"]["lr"] == 0.1
    assert manifest["state"]["schedule"]["step"] == 10


def test_evaluate_repeats_the_number(finished: Path) -> None:
    summary, result = _summary(finished), evaluate(finished)

    assert (result.top1, result.top5, result.loss) == (summary.top1, summary.top5, summary.loss)
    assert result.num_images == 360


def test_statistics_are_of_images_like_those_of_the_last_epoch(tmp_path: Path) -> None:
    cropped = short_recipe("--data.augmentation=crop_flip")
    recipe = replace(cropped, data=replace(cropped.data, crop_until=2))
    summary = fit(recipe, tmp_path)
    second, third = (
        tmp_path / "checkpoints" / name for name in ("epoch_0002_step_000010", summary.checkpoint)
    )

    assert evaluate(third).loss == summary.loss
    assert evaluate(third, cropped).loss != summary.loss
    assert evaluate(second).loss == evaluate(second, cropped).loss
    trained = trained_network(third)
    test = load_data(recipe.data).test
    assert isinstance(test, ImageArrays)
    with torch.no_grad():
        logits = trained.model((test.images_nchw / 255 - trained.mean[0]) / trained.std[0])
    assert functional.cross_entropy(logits, test.labels).item() == pytest.approx(summary.loss, rel=1e-5)


@pytest.mark.parametrize(("epoch", "batches", "expected"), [(0, 0, 0), (3, 0, 2), (3, 4, 3)])
def test_the_last_epoch_of_a_checkpoint_is_the_one_it_was_in(epoch: int, batches: int, expected: int) -> None:
    assert last_epoch({"epoch": epoch, "batches": batches}) == expected


def test_evaluate_takes_a_single_checkpoint_wherever_it_lies(finished: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(finished / "checkpoints" / "epoch_0003_step_000015", tmp_path / "mine")

    assert evaluate(moved).top1 == _summary(finished).top1


def test_the_same_recipe_gives_the_same_bits(finished: Path, tmp_path: Path) -> None:
    fit(short_recipe(), tmp_path / "again")

    assert_same_bits(final_weights(tmp_path / "again"), final_weights(finished))


def test_another_seed_gives_other_weights(finished: Path, tmp_path: Path) -> None:
    summary = fit(short_recipe("--train.seed=1", "--schedule.epochs=1"), tmp_path / "seed")

    assert summary.weights_sha256 != _summary(finished).weights_sha256
    assert summary.seed == 1


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    finished: Path, tmp_path: Path, epoch: int
) -> None:
    run = _copy(finished, tmp_path)
    rewind(run, to_epoch=epoch)

    summary = fit(short_recipe(), run)

    assert_same_bits(final_weights(run), final_weights(finished))
    there = _summary(finished)
    assert summary.weights_sha256 == there.weights_sha256
    assert (summary.top1, summary.loss, summary.steps) == (there.top1, there.loss, there.steps)


def test_recalibration_never_changes_the_training(finished: Path, tmp_path: Path) -> None:
    fit(short_recipe("--train.recalibrate_batches=0"), tmp_path / "off")

    assert_same_bits(final_weights(tmp_path / "off"), final_weights(finished))


def test_a_finished_run_is_left_alone(finished: Path, tmp_path: Path) -> None:
    run = _copy(finished, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}

    summary = fit(short_recipe(), run)

    assert asdict(summary) == asdict(_summary(finished))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_damaged_checkpoint_is_passed_over(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _copy(finished, tmp_path)
    rewind(run, to_epoch=2)
    (run / "checkpoints" / "epoch_0002_step_000010" / "optimizer.safetensors").write_bytes(b"")

    fit(short_recipe(), run)

    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "epoch_0002_step_000010" in warnings[0]
    assert "epoch_0001_step_000005" in warnings[0]
    assert_same_bits(final_weights(run), final_weights(finished))


def test_only_the_last_checkpoints_and_the_best_stay(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(short_recipe("--train.keep_checkpoints=1", "--schedule.epochs=2"), run)

    best = read_manifest(RunDirectory(run).store.newest_first()[0])["state"]["best"]["checkpoint"]
    kept = {path.name for path in RunDirectory(run).store.newest_first()}
    assert kept == {"epoch_0002_step_000010", best}


def test_sixteen_bit_arithmetic_keeps_weights_in_fp32(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[torch.dtype] = set()
    forward = AdderClassifier.forward

    def watched(self: AdderClassifier, images: torch.Tensor) -> torch.Tensor:
        seen.add(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
        return forward(self, images)

    monkeypatch.setattr(AdderClassifier, "forward", watched)
    fit(short_recipe("--train.precision=bf16-mixed", "--schedule.epochs=1"), tmp_path / "run")

    weights = final_weights(tmp_path / "run")
    assert seen == {torch.bfloat16}
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32, torch.int64}


def _fit_on_ranks(run: Path, *overrides: str) -> Summary:
    launched()
    return fit(short_recipe(*overrides), run)


def test_two_ranks_resume_to_the_same_bits(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    first, second = on_ranks(2, _fit_on_ranks, whole)
    shutil.copytree(whole, resumed)
    rewind(resumed, to_epoch=1)

    on_ranks(2, _fit_on_ranks, resumed)

    assert first == second
    assert first.world_size == 2
    weights = final_weights(whole)
    assert_same_bits(final_weights(resumed), weights)
    # BatchNorm is each rank's own, so the ranks' statistics differ; what loads elsewhere is their mean.
    first_rank, second_rank = weights["0/norm1.running_mean"], weights["1/norm1.running_mean"]
    assert not torch.equal(first_rank, second_rank)
    mean = torch.stack([first_rank.double(), second_rank.double()]).mean(0).float()
    assert torch.equal(weights["norm1.running_mean"], mean)


def _evaluate_on_ranks(run: Path) -> tuple[float, int]:
    launched()
    result = evaluate(run)
    return result.loss, result.num_images


def test_evaluation_is_the_same_on_any_number_of_ranks(finished: Path) -> None:
    expected = _summary(finished).loss

    for loss, num_images in on_ranks(3, _evaluate_on_ranks, finished):
        assert num_images == 360
        assert abs(loss - expected) < 1e-6


def test_a_run_of_two_ranks_goes_on_with_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    on_ranks(2, _fit_on_ranks, run, "--schedule.epochs=3")
    rewind(run, to_epoch=2)

    summary = fit(short_recipe(), run)

    assert summary.world_size == 1
    assert summary.steps == 15
    assert summary.top1 > 60


@pytest.mark.parametrize("recalibrate_batches", [0, 2])
def test_a_ddp_strategy_without_a_launcher_is_one_process(
    finished: Path, tmp_path: Path, recalibrate_batches: int
) -> None:
    overrides = ("--train.strategy=ddp", f"--train.recalibrate_batches={recalibrate_batches}")

    (summary,) = on_ranks(1, _fit_on_ranks, tmp_path / "ddp", *overrides)

    assert summary.weights_sha256 == _summary(finished).weights_sha256
