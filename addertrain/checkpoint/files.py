"""One checkpoint on disk: a directory of safetensors files, and a manifest with their checksums.

    epoch_0003_step_000702/
        model.safetensors         parameters and buffers by name (buffers: the mean over the ranks)
        optimizer.safetensors     momentum by parameter name
        rank_buffers.safetensors  the buffers of every rank, as "RANK/NAME"
        average.safetensors       only where weights are averaged: the average by parameter name
        companions.safetensors    only where a teacher trains too: it, and what only training needs
        optimizer.part_0002.safetensors   the file of rank 2, if momentum or parameters are sharded (`parts`)
        manifest.json             position, recipe, versions, plain state, size and SHA-256 of every file

The directory gets its final name only when it is complete and flushed. This file knows names, tensors and
JSON; `train.strategies.checkpoint_io` knows what they mean to a trainer, and `store` chooses a checkpoint.
Only reading and writing tensors imports torch; reading a manifest, verifying and listing files do not.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from addertrain.checkpoint.part_names import is_part_of
from addertrain.checkpoint.upgrade import upgraded
from addertrain.durable import flush_directory, flush_file, hidden_name, sha256_of
from addertrain.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from addertrain.checkpoint.sharded_write import OtherParts

FORMAT_VERSION = 3  # how 1 and 2 differ is the business of `upgrade`
MANIFEST = "manifest.json"
TENSOR_FILES = ("model", "optimizer", "rank_buffers")
OPTIONAL_FILES = ("average", "companions")
TENSORS = (*TENSOR_FILES, *OPTIONAL_FILES)


def temporary_name(path: Path) -> Path:
    """The folder in which this process writes the checkpoint `path`, empty or not there."""
    temporary = hidden_name(path, "tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    return temporary


def write_checkpoint(
    path: Path,
    tensors: Mapping[str, Mapping[str, "Tensor"]],
    manifest: Mapping[str, Any],
    others: "OtherParts | None" = None,
) -> None:
    """Writes the directory `path`, replacing one of that name.

    Args:
        path: the final name; its parent has to exist.
        tensors: the tensors by name for each of `TENSOR_FILES` and any of `OPTIONAL_FILES`, and this
            process's pieces under their `part_name`.
        manifest: plain values, with `parts` (tensor file -> name -> shape) if tensors are sharded; the format
            version and the checksums are added here.
        others: what other processes write into its `folder`, a `temporary_name` of this one.

    Raises:
        OSError: the disk is full, the folder cannot be written, ... Nothing appears under the final name
            then.
    """
    from addertrain.checkpoint.tensor_file import write_tensors

    assert set(TENSOR_FILES) <= set(tensors), sorted(tensors)
    temporary = temporary_name(path) if others is None else others.folder
    try:
        temporary.mkdir(exist_ok=others is not None)
        files = {}
        for name, contents in tensors.items():
            file = temporary / f"{name}.safetensors"
            files[file.name] = write_tensors(file, contents)
        if others is not None:
            files |= others.collect()
        _write_manifest(temporary / MANIFEST, {**manifest, "format_version": FORMAT_VERSION, "files": files})
        flush_directory(temporary)
        _rename_over(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    flush_directory(path.parent)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the checkpoint `path` as format 3 has it, after its own checksum has been compared.

    Raises:
        CheckpointError: there is no manifest, or it is damaged or of a later format.
    """
    try:
        if not (path / MANIFEST).is_file():  # opening a pipe would wait for ever
            raise CheckpointError(
                f"{path}: expected a checkpoint with {MANIFEST}, got none; it is incomplete or no checkpoint"
            )
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except CheckpointError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected a readable {MANIFEST}, got: {error}") from None
    if not isinstance(manifest, dict) or manifest.pop("manifest_sha256", None) != _fingerprint(manifest):
        raise CheckpointError(f"{path}: expected {MANIFEST} to match its own checksum, got a damaged one")
    if not _is_manifest(manifest):
        raise CheckpointError(f"{path}: expected {MANIFEST} of a checkpoint, got other contents")
    if manifest["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: expected format {FORMAT_VERSION} or older, got {manifest['format_version']}; "
            "update addertrain"
        )
    try:
        return upgraded(manifest)
    except (LookupError, TypeError, AttributeError, ValueError):
        raise CheckpointError(
            f"{path}: expected {MANIFEST} of format {manifest['format_version']}, got other contents"
        ) from None


def verify_checkpoint(path: Path) -> dict[str, Any]:
    """Compares every file with its checksum and returns the manifest; nothing is interpreted before that.

    Raises:
        CheckpointError: names the checkpoint, every damaged file and what is wrong with it.
    """
    manifest = read_manifest(path)
    if found := [what for name, file in manifest["files"].items() if (what := _damage(path / name, file))]:
        raise CheckpointError(f"{path}: {'; '.join(found)}")
    return manifest


def _is_manifest(manifest: dict[str, Any]) -> bool:
    """Whether it has the entries that every reader needs, and its file names stay inside the checkpoint."""
    files = manifest.get("files")
    numbers = [manifest.get(key, 0) for key in ("format_version", "epoch", "global_step")]
    return (
        isinstance(files, dict)
        and {f"{name}.safetensors" for name in TENSOR_FILES} <= set(files)
        and all(Path(name).name == name and {"bytes", "sha256"} <= set(file) for name, file in files.items())
        and all(isinstance(number, int) for number in numbers)
    )


def _damage(file: Path, expected: Mapping[str, Any]) -> str | None:
    """What is wrong with a file, or None."""
    try:
        if file.exists() and not file.is_file():
            return f"{file.name} is no file"
        num_bytes = file.stat().st_size
        if num_bytes != expected["bytes"]:
            return f"{file.name} has {num_bytes} bytes, expected {expected['bytes']}"
        return None if sha256_of(file) == expected["sha256"] else f"{file.name} does not match its checksum"
    except FileNotFoundError:
        return f"{file.name} is missing"
    except OSError as error:
        return f"{file.name} cannot be read ({error.strerror})"


def has_tensors(manifest: Mapping[str, Any], name: str) -> bool:
    """Whether a checkpoint holds the file of tensors `name`."""
    return f"{name}.safetensors" in manifest["files"]


def read_tensors(path: Path, name: str) -> "dict[str, Tensor]":
    """The tensors of one of the files on the CPU, assembled if several ranks wrote pieces of them."""
    manifest = read_manifest(path)
    tensors = _load(path, f"{name}.safetensors")
    if (shapes := manifest.get("parts", {}).get(name)) is None:
        return tensors
    parts = (_load(path, file) for file in _part_files(manifest, name))
    from addertrain.checkpoint.sharded_write import assembled

    return tensors | assembled(parts, shapes, where=f"{path}: {name}")


def read_shapes(path: Path, name: str) -> dict[str, dict[str, Any]]:
    """Type and shape of the tensors of one of the files, by name; reads headers alone."""
    manifest = read_manifest(path)
    found = _header(path, f"{name}.safetensors")
    shapes = manifest.get("parts", {}).get(name, {})
    for file in _part_files(manifest, name):
        for piece, entry in _header(path, file).items():
            tensor = piece.rpartition("@")[0]
            found[tensor] = {"dtype": entry["dtype"], "shape": shapes[tensor]}
    return dict(sorted(found.items()))


def _part_files(manifest: Mapping[str, Any], name: str) -> list[str]:
    return [file for file in manifest["files"] if is_part_of(file, name)]


def _load(path: Path, file: str) -> "dict[str, Tensor]":
    from safetensors.torch import load_file

    try:
        return load_file(path / file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: {file} cannot be read ({error})") from None


def _header(path: Path, name: str) -> dict[str, dict[str, Any]]:
    try:
        with safe_open(path / name, framework="numpy") as file:  # "pt" would import torch for nothing
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
            return {
                key: {"dtype": part.get_dtype(), "shape": part.get_shape()} for key, part in slices.items()
            }
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: {name} cannot be read ({error})") from None


def _write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps({**manifest, "manifest_sha256": _fingerprint(manifest)}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    flush_file(path)


def _fingerprint(manifest: Mapping[str, Any]) -> str:
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _rename_over(temporary: Path, path: Path) -> None:
    """Renames a directory onto another; a directory that is not empty has to be moved away first."""
    if not path.exists():
        temporary.rename(path)
        return
    old = hidden_name(path, "old")
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    temporary.rename(path)
    shutil.rmtree(old, ignore_errors=True)
