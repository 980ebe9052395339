"""The contents of a checkpoint as plain values and as text; only the manifest and file headers are read."""

import math
from pathlib import Path
from typing import Any

from addertrain.checkpoint.files import TENSORS, has_tensors, read_manifest, read_shapes

POSITION_KEYS = ("epoch", "batches", "global_step", "batches_per_epoch", "is_evaluation_due")
"""What a manifest says of the place in a training."""
_ABOUT = ("seed", "world_size", "commit", "versions", "averaged", "initial_weights")
_RECORDS = ("sessions", "data")


def contents(path: Path) -> dict[str, Any]:
    """The manifest's position and origin, every file, and type and shape of every tensor.

    Raises:
        CheckpointError: the manifest or a file's header is damaged.
    """
    manifest = read_manifest(path)
    return {
        "path": str(path),
        "format_version": manifest["format_version"],
        **{key: manifest[key] for key in (*POSITION_KEYS, *_ABOUT, *_RECORDS) if key in manifest},
        "recipe": manifest.get("recipe"),
        "files": manifest["files"],
        "tensors": {name: read_shapes(path, name) for name in TENSORS if has_tensors(manifest, name)},
    }


def as_text(found: dict[str, Any]) -> str:
    """`contents` as text: epoch and step of the run, then the files, then the network."""
    recipe = found["recipe"]
    lines = [
        f"{found['path']} (format {found['format_version']})",
        _row("recipe", recipe["name"] if recipe else "none"),
        _row(
            "position",
            f"{found['epoch']} epochs and {found['batches']} batches, {found['global_step']} steps"
            + (", evaluation still to be made" if found.get("is_evaluation_due") else ""),
        ),
    ]
    lines += [_row(key.replace("_", " "), _inline(found[key])) for key in _ABOUT if key in found]
    lines += [_row("session", _session(session)) for session in found.get("sessions", [])]
    if (data := found.get("data")) is not None:
        lines.append(
            _row("data", ", ".join(f"{data[part]['images']} {part} images" for part in ("train", "test")))
        )
    lines.append("")
    for name, file in found["files"].items():
        lines.append(f"{name:<32} {file['bytes']:>13,} bytes  {file['sha256'][:16]}")
    for name, tensors in found["tensors"].items():
        elements = sum(math.prod(tensor["shape"]) for tensor in tensors.values())
        lines.append(_row(name, f"{len(tensors)} tensors, {elements:,} elements"))
    lines.append("")
    for name, tensor in found["tensors"]["model"].items():
        lines.append(f"{name:<40} {tensor['dtype']:<5} {'x'.join(map(str, tensor['shape'])) or 'number'}")
    return "\n".join(lines)


def _row(key: str, value: str) -> str:
    return f"{key:<16} {value}"


def _session(session: dict[str, Any]) -> str:
    """When it began and where, on how many ranks, and by which command."""
    ranks = f"{session['strategy']}, {session['world_size']} on {session['num_nodes']} of {session['device']}"
    return (
        f"{session['started']} from {session['resumed_from'] or 'new weights'}: {ranks}: {session['command']}"
    )


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    if isinstance(value, list):
        return "; ".join(map(_inline, value))
    return str(value)
