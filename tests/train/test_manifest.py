"""A manifest of format 3: its keys are those that docs/checkpoints.md lists, and none is a trainer's."""

import json
import re
from pathlib import Path

from lightning.pytorch import Trainer

from addertrain.checkpoint.files import MANIFEST
from addertrain.train.callbacks.stateful import StatefulCallback
from addertrain.train.run_directory import RunDirectory
from tests.source_tree import PACKAGE, ROOT
from tests.train.tiny_training import OLD

# Only where pieces, another network's weights, averages, a loss scaler or callbacks of a user's own are.
_SOMETIMES = {"parts", "initial_weights", "averaged", "state.loss_scale", "foreign"}


def _documented() -> set[str]:
    text = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8").partition("### The manifest")[2]
    rows = re.findall(r"^\| (`[^|]*) \|", text.partition("\nA callback of")[0], flags=re.M)
    return {key for row in rows for key in re.findall(r"`([\w.]+)`", row)}


def test_the_documented_table_is_what_a_run_writes(finished: Path) -> None:
    path = RunDirectory(finished).store.newest_first()[0] / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))

    keys = {key for key in manifest if key != "state"} | {f"state.{name}" for name in manifest["state"]}
    assert keys == _documented() - _SOMETIMES


def test_no_name_in_a_manifest_is_a_class_or_lightnings(finished: Path) -> None:
    path = RunDirectory(finished).store.newest_first()[0] / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))

    text = json.dumps({key: manifest[key] for key in ("state", "optimizer")})
    classes = {each.__name__ for each in StatefulCallback.__subclasses__()} | {Trainer.__name__}
    assert not [word for word in (*classes, "lightning", "_loop", "progress") if word in text]


def test_only_the_reader_of_old_formats_knows_lightnings_keys() -> None:
    """`checkpoint/` knows no trainer; what older versions wrote is written down in one file."""
    words = ("lightning", "fit_loop", "lr_schedulers", "RunClock", "optimizer_states")
    knowing = {
        path.name
        for path in (PACKAGE / "checkpoint").glob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in words)
    }

    assert knowing == {"upgrade.py"}
    assert "fit_loop" in (OLD / "format_2" / "end" / MANIFEST).read_text(encoding="utf-8")
