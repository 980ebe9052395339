"""Which data a run is trained on: what its checkpoints record, and whether today's are the same."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from addertrain.checkpoint.files import read_manifest
from addertrain.data import DataError, ImageArrays, ImageData, PictureReader, part_sha256
from addertrain.errors import RunError, UsageError
from addertrain.train.processes import on_first_rank

RECORD = "data"  # of a manifest
Part = ImageArrays | PictureReader


def data_record(data: ImageData) -> dict[str, Any]:
    """Numbers of images, names of classes where they have any, and a fingerprint of either part.

    The fingerprint is that of `addertrain.data.part_sha256`: pictures themselves are not read.
    """
    return {
        "num_classes": data.num_classes,
        "classes": None if isinstance(data.train, ImageArrays) else list(data.train.classes),
        **{
            name: {"images": len(part), "sha256": part_sha256(part)}
            for name, part in (("train", data.train), ("test", data.test))
        },
    }


def check_ranks_agree(record: Mapping[str, Any]) -> None:
    """Every rank calls this.

    Raises:
        RunError: this rank found other data than the first one.
    """
    first = on_first_rank(lambda: record)
    if found := [*_class_differences(first, record), *_differences(first, record, "train", "test")]:
        raise RunError(
            f"data: expected the first rank's on every rank, got others ({'; '.join(found)}); check "
            "data.root on each machine"
        )


def check_resumption(checkpoint: Path | None, record: Mapping[str, Any], warn: Callable[[str], None]) -> None:
    """Compares today's data with what `checkpoint` was trained on, where it says that.

    Args:
        warn: is told in one line that the test images alone are others.

    Raises:
        UsageError: the training images or the classes are others.
    """
    recorded = read_manifest(checkpoint).get(RECORD) if checkpoint is not None else None
    if recorded is None:  # a new run, or one that an earlier version began
        return
    if found := [*_class_differences(recorded, record), *_differences(recorded, record, "train")]:
        raise UsageError(
            f"{checkpoint}: was trained on other data ({'; '.join(found)}); put them back, name their folder "
            "with --data.root, or choose another --out for a new run"
        )
    for difference in _differences(recorded, record, "test"):
        warn(f"{checkpoint}: was evaluated on other images ({difference}); accuracies do not compare")


def check_evaluation(
    checkpoint: Path, record: Mapping[str, Any], warn: Callable[[str], None], *, named: Path | None = None
) -> None:
    """The same for an evaluation, which may read other images than the training, but no other classes.

    Args:
        named: what messages call the checkpoint, where its files are read under another name.

    Raises:
        DataError: the classes are others, so that the labels mean something else.
    """
    recorded = read_manifest(checkpoint).get(RECORD)
    if recorded is None:
        return
    where = named or checkpoint
    if found := _class_differences(recorded, record):
        raise DataError(
            f"{where}: expected the classes that it was trained on, got others ({'; '.join(found)}); "
            "put them back, or name their folder with data.root"
        )
    for difference in _differences(recorded, record, "test", "train"):
        warn(f"{where}: its run had other images ({difference}); accuracies do not compare")


def _class_differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    if there["num_classes"] != here["num_classes"]:
        return [f"{there['num_classes']} classes there, {here['num_classes']} here"]
    if there["classes"] == here["classes"] or None in (there["classes"], here["classes"]):
        return []
    pairs = enumerate(zip(there["classes"], here["classes"], strict=True))
    number, (old, new) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
    return [f"class {number} is {old!r} there, {new!r} here"]


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], *parts: str) -> list[str]:
    found = []
    for part in parts:
        words = "training" if part == "train" else "test"
        if (old := there[part]["images"]) != (new := here[part]["images"]):
            found.append(f"{old} {words} images there, {new} here")
        elif there[part]["sha256"] != here[part]["sha256"]:
            found.append(f"other {words} images or labels than there")
    return found
