"""Records the data of a run in its checkpoints, and checks whether today's data are the same."""

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
    """Numbers of images, names of classes if there are any, and fingerprints of the training and test
    images (`addertrain.data.part_sha256`, which decodes no image files).
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
    """Checks that all ranks have the same data; every rank has to call it.

    Raises:
        RunError: this rank has other data than the first one.
    """
    first = on_first_rank(lambda: record)
    if found := [*_class_differences(first, record), *_differences(first, record, "train", "test")]:
        raise RunError(
            f"data: expected the same data on every rank, got different data ({'; '.join(found)}); check "
            "data.root on each machine"
        )


def check_resumption(checkpoint: Path | None, record: Mapping[str, Any], warn: Callable[[str], None]) -> None:
    """Compares today's data with those of `checkpoint`, if it recorded them.

    Args:
        warn: receives one line if only the test images differ.

    Raises:
        UsageError: the training images or the classes differ.
    """
    recorded = read_manifest(checkpoint).get(RECORD) if checkpoint is not None else None
    if recorded is None:  # a new run, or one that an earlier version began
        return
    if found := [*_class_differences(recorded, record), *_differences(recorded, record, "train")]:
        raise UsageError(
            f"{checkpoint}: expected the data that it was trained on, got others ({'; '.join(found)}); "
            "restore them, name their folder with --data.root, or choose another --out for a new run"
        )
    for difference in _differences(recorded, record, "test"):
        warn(
            f"{checkpoint}: was evaluated on other images ({difference}), so the accuracies are not "
            "comparable"
        )


def check_evaluation(
    checkpoint: Path, record: Mapping[str, Any], warn: Callable[[str], None], *, named: Path | None = None
) -> None:
    """The same for an evaluation, which may use other images but not other classes.

    Args:
        named: the name of the checkpoint in messages, if its files are read under another name.

    Raises:
        DataError: the classes differ, so that labels have another meaning.
    """
    recorded = read_manifest(checkpoint).get(RECORD)
    if recorded is None:
        return
    where = named or checkpoint
    if found := _class_differences(recorded, record):
        raise DataError(
            f"{where}: expected the classes that it was trained on, got others ({'; '.join(found)}); "
            "restore them, or name their folder with data.root"
        )
    for difference in _differences(recorded, record, "test", "train"):
        warn(
            f"{where}: its run was evaluated on other images ({difference}), so the accuracies are not "
            "comparable"
        )


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
