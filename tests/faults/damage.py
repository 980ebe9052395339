"""What can happen to a checkpoint on the disk: each damage changes one directory, at random, in one way."""

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from addertrain.checkpoint.files import MANIFEST, _fingerprint

Damage = Callable[[Path, Path, random.Random], None]
"""Damages the first path; the second one is another checkpoint of the run, whole."""


class Hostile:
    """A pickle of this makes the folder PROOF where somebody unpickles it."""

    def __init__(self, proof: Path) -> None:
        self.proof = str(proof)

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (self.proof,)


def _any_file(checkpoint: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(checkpoint.iterdir()))


def _tensor_file(checkpoint: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(checkpoint.glob("*.safetensors")))


def truncated(checkpoint: Path, other: Path, rng: random.Random) -> None:
    file = _any_file(checkpoint, rng)
    os.truncate(file, rng.randrange(file.stat().st_size))


def one_bit_flipped(checkpoint: Path, other: Path, rng: random.Random) -> None:
    file = _tensor_file(checkpoint, rng)
    contents = bytearray(file.read_bytes())
    contents[rng.randrange(len(contents))] ^= 1 << rng.randrange(8)
    file.write_bytes(contents)


def manifest_changed(checkpoint: Path, other: Path, rng: random.Random) -> None:
    text = (checkpoint / MANIFEST).read_text()
    digits = [k for k, letter in enumerate(text) if letter.isdigit()]
    at = rng.choice(digits)
    (checkpoint / MANIFEST).write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}")


def zeros_at_the_end(checkpoint: Path, other: Path, rng: random.Random) -> None:
    """As a power cut leaves a file whose size was written before its contents."""
    file = _any_file(checkpoint, rng)
    size = file.stat().st_size
    os.truncate(file, rng.randrange(size - 1))
    os.truncate(file, size)


def file_missing(checkpoint: Path, other: Path, rng: random.Random) -> None:
    _any_file(checkpoint, rng).unlink()


def half_deleted(checkpoint: Path, other: Path, rng: random.Random) -> None:
    files = sorted(checkpoint.iterdir())
    for file in rng.sample(files, rng.randint(2, len(files))):
        file.unlink()


def file_renamed(checkpoint: Path, other: Path, rng: random.Random) -> None:
    file = _any_file(checkpoint, rng)
    file.rename(file.with_name(f"{file.name}.bak"))


def files_exchanged(checkpoint: Path, other: Path, rng: random.Random) -> None:
    one, two = rng.sample(sorted(checkpoint.iterdir()), 2)
    one.rename(checkpoint / "between")
    two.rename(one)
    (checkpoint / "between").rename(two)


def folder_for_a_file(checkpoint: Path, other: Path, rng: random.Random) -> None:
    file = _any_file(checkpoint, rng)
    file.unlink()
    file.mkdir()


def pipe_for_a_file(checkpoint: Path, other: Path, rng: random.Random) -> None:
    """Whoever opens it waits for ever."""
    file = _any_file(checkpoint, rng)
    file.unlink()
    os.mkfifo(file)


def empty_manifest(checkpoint: Path, other: Path, rng: random.Random) -> None:
    (checkpoint / MANIFEST).write_text(rng.choice(["", "{}", "[]", "null", "[" * 100_000]))


def manifest_of_another(checkpoint: Path, other: Path, rng: random.Random) -> None:
    shutil.copy(other / MANIFEST, checkpoint / MANIFEST)


def tensors_of_another(checkpoint: Path, other: Path, rng: random.Random) -> None:
    name = rng.choice(["model.safetensors", "optimizer.safetensors"])
    shutil.copy(other / name, checkpoint / name)


def another_under_its_name(checkpoint: Path, other: Path, rng: random.Random) -> None:
    shutil.rmtree(checkpoint)
    shutil.copytree(other, checkpoint)


def foreign_manifest(checkpoint: Path, other: Path, rng: random.Random) -> None:
    """With a right checksum, but not what a checkpoint has."""
    file = checkpoint / MANIFEST
    manifest = json.loads(file.read_text())
    del manifest["manifest_sha256"]
    files = manifest["files"]
    change = rng.choice(["no files", "outside", "no sizes", "words"])
    if change == "outside":
        files["../../summary.json"] = files["model.safetensors"]
    elif change == "words":
        manifest["global_step"] = "many"
    else:
        manifest["files"] = {} if change == "no files" else {name: {} for name in files}
    file.write_text(json.dumps(manifest | {"manifest_sha256": _fingerprint(manifest)}))


def hostile_pickle(checkpoint: Path, other: Path, rng: random.Random) -> None:
    _tensor_file(checkpoint, rng).write_bytes(pickle.dumps(Hostile(checkpoint.parent / "harm")))


DAMAGES: tuple[Damage, ...] = (
    truncated, one_bit_flipped, manifest_changed, zeros_at_the_end, file_missing, half_deleted, file_renamed,
    files_exchanged, folder_for_a_file, pipe_for_a_file, empty_manifest, manifest_of_another,
    tensors_of_another, another_under_its_name, foreign_manifest, hostile_pickle,
)  # fmt: skip
