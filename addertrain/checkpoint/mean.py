"""The mean of several checkpoints' weights, as a checkpoint without momentum."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from addertrain.checkpoint.files import has_tensors, read_tensors, verify_checkpoint, write_checkpoint
from addertrain.errors import CheckpointError

_FILES = ("model", "average")


def write_mean(paths: Sequence[Path], target: Path) -> None:
    """Writes the mean over `paths`, summed in float64, as the checkpoint `target`, which must not exist.

    Whole numbers, the position and the recipe are those of the checkpoint with the most steps. Moving
    averages of the weights are averaged as well if all checkpoints have them. Running statistics are averaged
    too, which fits no network: recompute them. The manifest's `averaged` names the sources.

    Raises:
        CheckpointError: they hold different networks, one is named twice or damaged, or `target` exists.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise CheckpointError(
            f"{target}: expected different checkpoints to average, got the same one twice in "
            f"{', '.join(map(str, paths))}; name each once"
        )
    if target.exists():
        raise CheckpointError(
            f"{target}: expected a new folder to write to, got one that exists; choose another --out"
        )
    manifests = [verify_checkpoint(path) for path in paths]
    newest = max(range(len(paths)), key=lambda index: int(manifests[index]["global_step"]))
    files = [name for name in _FILES if all(has_tensors(manifest, name) for manifest in manifests)]
    tensors: dict[str, Mapping[str, Tensor]] = {"optimizer": {}, "rank_buffers": {}}
    for name in files:
        tensors[name] = mean_of([read_tensors(path, name) for path in paths], paths, newest=newest)
    try:
        write_checkpoint(target, tensors, _manifest(manifests, paths, newest))
    except OSError as error:
        raise CheckpointError(
            f"{target}: expected to write a checkpoint there, got: {error}; name another folder"
        ) from None


def mean_of(
    networks: Sequence[Mapping[str, Tensor]], sources: Sequence[Path], *, newest: int
) -> dict[str, Tensor]:
    """The mean of each tensor in its own data type; integer tensors are those of the `newest` network."""
    result = {}
    for name, last in networks[newest].items():
        for network, source in zip(networks, sources, strict=True):
            if network.keys() != networks[newest].keys() or network[name].shape != last.shape:
                raise CheckpointError(
                    f"{source}: expected the network of {sources[newest]}, got another one ({name} "
                    "differs); average checkpoints of the same recipe"
                )
        total = torch.zeros_like(last, dtype=torch.float64)
        for network in networks:
            total += network[name]
        result[name] = (total / len(networks)).to(last.dtype) if last.is_floating_point() else last
    return result


def _manifest(manifests: Sequence[Mapping[str, Any]], paths: Sequence[Path], newest: int) -> dict[str, Any]:
    kept = {
        key: value for key, value in manifests[newest].items() if key not in ("files", "parts", "foreign")
    }
    sources = [
        {"name": path.name, "epoch": manifest["epoch"], "global_step": manifest["global_step"]}
        for path, manifest in zip(paths, manifests, strict=True)
    ]
    return {**kept, "optimizer": None, "state": {}, "averaged": sources}
