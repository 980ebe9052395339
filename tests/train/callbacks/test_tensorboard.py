import math
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator, ScalarEvent
from torch.utils.tensorboard import SummaryWriter

from addertrain.recipe import Recipe
from addertrain.train.callbacks.event_file import put_earlier_files_first
from addertrain.train.run import fit
from addertrain.train.run_directory import RunDirectory, Summary
from tests.train.small_runs import ReadEvery, rewind, short_recipe

LAYERS = ("conv1", "conv2", "conv3", "fc1", "fc2")


def _fit(recipe: Recipe, run: Path, *callbacks: Callback) -> Summary:
    """With a window every second step."""
    return fit(recipe, run, callbacks=[ReadEvery(2), *callbacks])


def _curves(run: Path) -> dict[str, list[ScalarEvent]]:
    """What TensorBoard draws: points that a later session has declared void are gone."""
    events = EventAccumulator(str(run))
    events.Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


def _without_faults(curves: dict[str, list[ScalarEvent]]) -> dict[str, list[ScalarEvent]]:
    """A resumption writes those two anew."""
    return {tag: curve for tag, curve in curves.items() if not tag.startswith("faults/")}


def _steps(curve: list[ScalarEvent]) -> list[int]:
    return [point.step for point in curve]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensorboard") / "run"


def test_every_promised_curve_is_there(watched: Path) -> None:
    summary = _fit(short_recipe(), watched)
    curves = _curves(watched)

    per_window = {
        "loss/train",
        "accuracy/train_top1",
        "speed/images_per_second",
        "speed/data_wait",
        "schedule/lr",
    }
    per_layer = {f"{kind}/{layer}" for kind in ("alr_alpha", "grad_norm", "weight_rms") for layer in LAYERS}
    per_epoch = {
        "loss/val", "accuracy/val_top1", "accuracy/val_top5", "loss/train_epoch", "accuracy/train_epoch",
            "loss/val_uncalibrated", "accuracy/val_top1_uncalibrated", "speed/recalibration_seconds",
    }  # fmt: skip
    assert set(curves) == per_window | per_layer | per_epoch
    assert all(_steps(curves[tag]) == [2, 4, 6, 8, 10, 12, 14] for tag in per_window | per_layer)
    assert all(_steps(curves[tag]) == [5, 10, 15] for tag in per_epoch)
    assert math.isclose(curves["accuracy/val_top1"][-1].value, summary.top1, rel_tol=1e-6)


def test_values_are_what_they_are_called(watched: Path) -> None:
    curves = _curves(watched)

    for point in curves["schedule/lr"]:
        assert math.isclose(point.value, 0.05 * (1 + math.cos(math.pi * point.step / 15)), rel_tol=1e-5)
    # Eq. 13: alpha * ||g|| = eta * sqrt(k)
    for rate, norm in zip(curves["alr_alpha/conv3"], curves["grad_norm/conv3"], strict=True):
        assert math.isclose(rate.value * norm.value, 0.2 * math.sqrt(120 * 16 * 25), rel_tol=1e-4)
    assert 0.5 < curves["weight_rms/conv3"][0].value < 1.5  # weights begin as N(0, 1)
    assert all(0.0 <= point.value <= 1.0 for point in curves["speed/data_wait"])


def test_a_resumed_run_doubles_no_curve(watched: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(watched, tmp_path / "run"))
    rewind(run, to_epoch=1)

    _fit(short_recipe(), run)

    before, after = _curves(watched), _without_faults(_curves(run))
    assert len(list(run.glob("events*"))) == 2
    assert before.keys() == after.keys()
    for tag, curve in after.items():
        assert max(Counter(_steps(curve)).values()) == 1, tag
        # A resumption starts a new window, so only the first one after it differs.
        assert [step for step in _steps(curve) if step not in (6,)] == [
            s for s in _steps(before[tag]) if s != 6
        ]
    assert [point.value for point in after["loss/val"]] == [point.value for point in before["loss/val"]]


@pytest.mark.parametrize("step", [6, 0])
def test_what_a_kill_in_mid_epoch_lost_is_drawn_once(tmp_path: Path, step: int) -> None:
    """The events of all steps are on the disk, the checkpoints of the later ones are not; 0: none is."""
    words, run = ("--schedule.epochs=2", "--train.save_every_steps=3"), tmp_path / "run"
    _fit(short_recipe(*words), run)
    before = _curves(run)
    rewind(run, to_step=step)

    _fit(short_recipe(*words), run)

    after = _without_faults(_curves(run))
    assert {tag: _steps(curve) for tag, curve in after.items()} == {
        tag: _steps(curve) for tag, curve in before.items()
    }
    assert _steps(after["loss/train"]) == [2, 4, 6, 8, 10]
    events = EventAccumulator(str(run)).Reload()
    assert [picture.step for picture in events.Images("images/train")] == [1]


def test_a_checkpoint_follows_its_points_to_the_disk(tmp_path: Path) -> None:
    """A kill behind a save in mid-epoch loses no point of the steps before it."""
    found: list[list[int]] = []

    class Reading(Callback):
        def on_save_checkpoint(self, *_: Any) -> None:
            found.append(_steps(_curves(tmp_path / "run")["loss/train"]))

    _fit(short_recipe("--schedule.epochs=1", "--train.save_every_steps=2"), tmp_path / "run", Reading())

    assert found == [[2], [2, 4], [2, 4]]


def test_a_clock_that_was_set_back_hides_no_curve(watched: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(watched, tmp_path / "run"))
    for number, file in enumerate(sorted(run.glob("events*"))):
        first, second, third, _, rest = file.name.split(".", 4)
        file.rename(run / f"{first}.{second}.{third}.{9_999_999_990 + number}.{rest}")
    rewind(run, to_epoch=1)

    _fit(short_recipe(), run)

    assert _steps(_curves(run)["loss/val"]) == [5, 10, 15]
    assert next(file.name.split(".")[3] for file in sorted(run.glob("events*"))) == "0000000001"


def test_files_of_the_same_second_stand_in_the_order_of_the_sessions(tmp_path: Path) -> None:
    for process in (88, 9, 100):  # their numbers are no order
        put_earlier_files_first(tmp_path)
        name = f"events.out.tfevents.{int(time.time()) + 60:010d}.host.{process}.0"
        (tmp_path / name).write_text(str(process))
    put_earlier_files_first(tmp_path)

    assert [file.read_text() for file in sorted(tmp_path.iterdir())] == ["88", "9", "100"]


def test_a_fault_that_was_undone_does_not_stand_for_ever(watched: Path, tmp_path: Path) -> None:
    """Also for readers that draw every point."""
    run = Path(shutil.copytree(watched, tmp_path / "run"))
    rewind(run, to_epoch=2)
    with SummaryWriter(str(run)) as killed:
        killed.add_scalar("faults/skipped_steps", 3, 13)

    _fit(short_recipe(), run)

    events = EventAccumulator(str(run), purge_orphaned_data=False)
    events.Reload()
    assert [(point.step, point.value) for point in events.Scalars("faults/skipped_steps")] == [
        (13, 3),
        (11, 0),
    ]


def test_points_beyond_the_checkpoint_are_purged(watched: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(watched, tmp_path / "run"))
    rewind(run, to_epoch=2)
    with SummaryWriter(str(run)) as killed:
        killed.add_scalar("loss/val", 123.0, 10_000)

    _fit(short_recipe(), run)

    assert _steps(_curves(run)["loss/val"]) == [5, 10, 15]


def test_the_run_without_windows_still_shows_its_epochs(tmp_path: Path) -> None:
    _fit(short_recipe("--schedule.epochs=1", "--model.kind=conv"), tmp_path / "run")

    curves = _curves(tmp_path / "run")

    assert _steps(curves["accuracy/val_top1"]) == [5]
    assert not [tag for tag in curves if tag.startswith("alr_alpha")]
    assert RunDirectory(tmp_path / "run").read_summary() is not None
