"""Manifests of formats 1 and 2, which earlier versions wrote, are read as those of format 3."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from addertrain.checkpoint.files import FORMAT_VERSION, MANIFEST, _fingerprint, read_manifest
from addertrain.errors import CheckpointError
from tests.train.tiny_training import OLD

POSITIONS: dict[str, dict[str, Any]] = {
    "format_1/mid_epoch": {"epoch": 1, "batches": 3, "global_step": 9, "is_evaluation_due": False},
    "format_2/mid_epoch": {"epoch": 1, "batches": 3, "global_step": 9, "is_evaluation_due": False},
    "format_2/between_epochs": {"epoch": 1, "batches": 0, "global_step": 6, "is_evaluation_due": False},
    "format_2/evaluation_due": {"epoch": 1, "batches": 6, "global_step": 12, "is_evaluation_due": True},
    "format_2/half_precision": {"epoch": 1, "batches": 4, "global_step": 5, "is_evaluation_due": False},
    "format_2/end": {"epoch": 3, "batches": 0, "global_step": 18, "is_evaluation_due": False},
}
_NAMES = {"loader", "schedule", "clock", "counts", "best", "faults"}


@pytest.mark.parametrize("name", POSITIONS)
def test_the_position_is_read_off_the_loops(name: str) -> None:
    manifest = read_manifest(OLD / name)

    found = {key: manifest[key] for key in (*POSITIONS[name], "batches_per_epoch")}
    assert found == POSITIONS[name] | {"batches_per_epoch": 6}
    assert manifest["format_version"] == int(name[7]) < FORMAT_VERSION


@pytest.mark.parametrize("name", POSITIONS)
def test_every_state_has_its_name_and_no_class_is_left(name: str) -> None:
    manifest = read_manifest(OLD / name)

    assert set(manifest["state"]) == _NAMES | ({"loss_scale"} if "half" in name else set())
    assert "foreign" not in manifest
    text = json.dumps({key: manifest[key] for key in ("state", "optimizer")})
    words = ("lightning", "fit_loop", "RunClock", "MixedPrecision", "_last_lr")
    assert not [word for word in words if word in text]


def test_values_are_those_of_before() -> None:
    old = json.loads((OLD / "format_2/half_precision" / MANIFEST).read_text(encoding="utf-8"))
    new = read_manifest(OLD / "format_2/half_precision")

    before, state = old["state"], new["state"]
    assert state["clock"] == before["callbacks"]["RunClock"]
    assert state["best"] == dict(
        zip(("checkpoint", "top1"), before["callbacks"]["SaveCheckpoints"].values(), strict=True)
    )
    assert list(state["counts"].values()) == before["epoch_so_far"]
    assert state["faults"] == before["faults"]
    assert state["schedule"]["step"] == before["lr_schedulers"][0]["last_epoch"] == 5
    assert state["loss_scale"]["good_steps"] == before["MixedPrecision"]["_growth_tracker"] == 5
    assert [new["optimizer"]] == old["optimizer"]


def _rewritten(folder: Path, **changes: Any) -> Path:
    """A copy of an old checkpoint with other entries in its manifest, and the checksum of these."""
    path = Path(shutil.copytree(OLD / "format_2/mid_epoch", folder / "epoch_0001_step_000009"))
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8")) | changes
    del manifest["manifest_sha256"]
    text = json.dumps(manifest | {"manifest_sha256": _fingerprint(manifest)})
    (path / MANIFEST).write_text(text, encoding="utf-8")
    return path


def test_what_others_kept_stays_apart(tmp_path: Path) -> None:
    state = {"callbacks": {"Mine": {"best": 3}}, "mine": 7, "loops": {}}

    manifest = read_manifest(_rewritten(tmp_path, state=state))

    assert manifest["foreign"] == {"callbacks": {"Mine": {"best": 3}}, "entries": {"mine": 7}}


@pytest.mark.parametrize(
    "state", [{"loops": {"fit_loop": {"epoch_progress": {}}}}, {"loops": [1]}, {"lr_schedulers": [{}]}, [2]]
)
def test_a_manifest_that_no_version_wrote_is_one_line(state: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="of format 2, got other contents"):
        read_manifest(_rewritten(tmp_path, state=state))
