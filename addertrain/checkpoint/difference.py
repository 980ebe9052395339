"""The difference of two checkpoints, tensor by tensor."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from addertrain.checkpoint.files import has_tensors, read_manifest, read_tensors

# The ranks' own buffers are left out: their mean is among the model's, and runs may differ in ranks.
_COMPARED = ("model", "optimizer", "average", "companions")


@dataclass(frozen=True)
class Difference:
    """The difference of one tensor: max |a - b| and max |a - b| / max(|a|, |b|), or why it has none."""

    file: str
    name: str
    absolute: float = 0.0
    relative: float = 0.0
    objection: str | None = None

    @property
    def is_none(self) -> bool:
        """Whether the two are equal in every element; NaN equals NaN."""
        return self.objection is None and self.absolute == 0.0


def differences(left: Path, right: Path) -> list[Difference]:
    """The difference of every tensor in either checkpoint, in the order of their names.

    Raises:
        CheckpointError: one of them cannot be read.
    """
    manifests = read_manifest(left), read_manifest(right)
    found: list[Difference] = []
    for file in _COMPARED:
        ours, theirs = (
            read_tensors(path, file) if has_tensors(manifest, file) else {}
            for path, manifest in zip((left, right), manifests, strict=True)
        )
        names = sorted({*ours, *theirs})
        found += [_difference(file, name, ours.get(name), theirs.get(name)) for name in names]
    return found


def _difference(file: str, name: str, ours: Tensor | None, theirs: Tensor | None) -> Difference:
    if ours is None or theirs is None:
        return Difference(file, name, objection=f"only in the {'second' if ours is None else 'first'}")
    if ours.shape != theirs.shape:
        return Difference(file, name, objection=f"shapes {tuple(ours.shape)} and {tuple(theirs.shape)}")
    if ours.dtype != theirs.dtype:
        return Difference(file, name, objection=f"types {ours.dtype} and {theirs.dtype}")
    a, b = ours.double(), theirs.double()
    apart = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
    apart = apart.nan_to_num(nan=torch.inf, posinf=torch.inf)
    relative = apart / torch.maximum(a.abs(), b.abs()).clamp_min(torch.finfo(torch.float64).tiny)
    relative = relative.nan_to_num(nan=1.0)  # of infinities
    return Difference(file, name, _largest(apart), _largest(relative))


def _largest(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0
