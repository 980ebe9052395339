"""Trainings go on from checkpoints of earlier versions, and under callbacks that have been renamed since.

Bits are those of one version: kernels of another one add in another order. So the ends of old trainings are
met within rounding, and the bits are held against the same checkpoint written anew in the format of today.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from addertrain.checkpoint.files import (
    FORMAT_VERSION,
    MANIFEST,
    _fingerprint,
    has_tensors,
    read_manifest,
    read_tensors,
)
from addertrain.train.callbacks.clock import RunClock
from addertrain.train.callbacks.guard import FiniteGuard
from addertrain.train.callbacks.meter import TrainMeter
from addertrain.train.callbacks.saving import SaveCheckpoints
from addertrain.train.signals import SignalWatch
from addertrain.train.strategies.checkpoint_io import DirectoryCheckpointIO
from tests.train.load_matrix import apart
from tests.train.small_runs import assert_same_bits
from tests.train.tiny_training import OLD, stateful_callbacks, train

NAMES = (
    "format_1/mid_epoch", "format_2/mid_epoch", "format_2/between_epochs", "format_2/evaluation_due",
    "format_2/half_precision",
)  # fmt: skip
_HALF = {"precision": "fp16-mixed", "accumulate": 2}
# Of the way from the checkpoint to the end: sums in another order, carried on over nine steps.
# Measured: 1.4e-6 in fp32; 1.4e-3 in fp16, whose products are rounded by 5e-4.
_ROUNDING, _ROUNDING_FP16 = 1e-4, 1e-2


class SaveAtOnce(Callback):
    """Saves what has been loaded, before the first step."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_start(self, trainer: Trainer, *_: object) -> None:
        trainer.save_checkpoint(self._path)


def _settings(name: str) -> dict[str, Any]:
    return _HALF if "half" in name else {}


def _resume(folder: Path, source: Path, **classes: Any) -> Path:
    """Goes on from `source` to the end, in `folder`; the last checkpoint."""
    folder.mkdir()
    callbacks = stateful_callbacks(folder, SignalWatch(), every_steps=None, **classes)
    train([*callbacks, SaveAtOnce(folder / "start")], source=source, **_settings(str(source)))
    return max(folder.glob("epoch_*"))


def _written_anew(source: Path, folder: Path) -> Path:
    """The same checkpoint in the format of today."""
    io, path = DirectoryCheckpointIO(), folder / f"anew {source.name}"
    io.save_checkpoint(io.load_checkpoint(source), path)
    assert read_manifest(path)["format_version"] == FORMAT_VERSION == 3
    return path


def _tensors(path: Path) -> dict[str, Tensor]:
    manifest = read_manifest(path)
    return {
        f"{file}/{name}": tensor
        for file in ("model", "optimizer", "rank_buffers", "average")
        if has_tensors(manifest, file)
        for name, tensor in read_tensors(path, file).items()
    }


def _state(path: Path) -> dict[str, Any]:
    return {name: value for name, value in read_manifest(path)["state"].items() if name != "clock"}


@pytest.mark.parametrize("name", NAMES)
def test_a_training_goes_on_from_an_old_checkpoint(name: str, tmp_path: Path) -> None:
    old, anew = OLD / name, _written_anew(OLD / name, tmp_path)
    expected_end = OLD / "format_2" / ("half_precision_end" if "half" in name else "end")

    end = _resume(tmp_path / "old", old)

    assert_same_bits(_tensors(tmp_path / "old" / "start"), _tensors(old))
    loaded, before = read_manifest(tmp_path / "old" / "start"), read_manifest(old)
    assert [loaded[key] for key in ("epoch", "batches", "global_step", "is_evaluation_due")] == [
        before[key] for key in ("epoch", "batches", "global_step", "is_evaluation_due")
    ]
    assert loaded["optimizer"] == before["optimizer"]
    states = _state(tmp_path / "old" / "start"), _state(old)
    if before["batches"] == 0:  # the next epoch begins anew, wherever the loader stood in the last one
        del states[0]["loader"], states[1]["loader"]
    assert states[0] == states[1]
    assert apart(end, expected_end, since=old) < (_ROUNDING_FP16 if "half" in name else _ROUNDING)
    other = _resume(tmp_path / "anew", anew)
    assert_same_bits(_tensors(other), _tensors(end))
    assert _state(other) == _state(end)


class Stopwatch(RunClock):
    """Each of these has a name of its own and keeps the state of its parent."""


class Counter(TrainMeter):
    pass


class Watchman(FiniteGuard):
    pass


class Archivist(SaveCheckpoints):
    pass


def test_renamed_callbacks_go_on(tmp_path: Path) -> None:
    start = _written_anew(OLD / "format_2/mid_epoch", tmp_path)
    plain = _resume(tmp_path / "plain", start)

    renamed = _resume(
        tmp_path / "renamed", start, clock=Stopwatch, meter=Counter, guard=Watchman, saves=Archivist
    )

    assert_same_bits(_tensors(renamed), _tensors(plain))
    assert _state(renamed) == _state(plain)
    clocks = [read_manifest(path)["state"]["clock"]["seconds"] for path in (start, renamed)]
    assert clocks[0] < clocks[1]


@pytest.mark.parametrize("version", ["0.9.0", "99.1"])
def test_lightnings_version_does_not_matter(version: str, tmp_path: Path) -> None:
    path = Path(shutil.copytree(OLD / "format_2/between_epochs", tmp_path / "other"))
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    manifest["state"]["pytorch-lightning_version"] = version
    del manifest["manifest_sha256"]
    text = json.dumps(manifest | {"manifest_sha256": _fingerprint(manifest)})
    (path / MANIFEST).write_text(text, encoding="utf-8")

    end = _resume(tmp_path / "run", path)

    assert read_manifest(end)["epoch"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in read_tensors(end, "model").values())
