"""Initial weights from another network, for fine-tuning or as a teacher; without momentum."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from addertrain.checkpoint.files import read_manifest, read_tensors
from addertrain.checkpoint.store import locate_checkpoint
from addertrain.errors import CheckpointError, UsageError
from addertrain.train.processes import on_first_rank
from addertrain.train.weights import weights_sha256

_RECORD = "initial_weights"


@dataclass(frozen=True)
class InitialWeights:
    """The initial weights of a run, and their source."""

    source: str
    tensors: dict[str, Tensor]
    sha256: str

    @property
    def about(self) -> dict[str, Any]:
        """The record of the weights in every checkpoint of the run."""
        return {_RECORD: {"from": self.source, "sha256": self.sha256}}

    def load(self, model: nn.Module, *, num_classes: int) -> str:
        """Loads the weights into `model` and says which layers keep their new values.

        Raises:
            CheckpointError: the tensors are of another network.
        """
        new = load_weights(model, self.tensors, source=self.source, num_classes=num_classes)
        return f"first weights from {self.source}; left new: {', '.join(new) or 'nothing'}"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads parameters and running statistics of a run, a checkpoint, or a file: the current weights, to
    which the statistics belong, not their average. Files are those of `ckpt convert`, and checkpoints of
    `AdderClassifier` in your own Lightning Trainer.

    Raises:
        CheckpointError: there are no weights.
    """
    if path.suffix in _READERS and path.is_file():
        try:
            return _READERS[path.suffix](path)
        except (OSError, SafetensorError, RuntimeError, UnpicklingError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise CheckpointError(
                f"{path}: expected the tensors of a network, got: {reason}; name a file that addertrain ckpt "
                "convert or torch.save wrote, or a checkpoint's folder"
            ) from None
    return read_tensors(locate_checkpoint(path, lambda _: None), "model")


def _read_torch(path: Path) -> dict[str, Tensor]:
    """Reads a file of torch.save without running code from it."""
    contents: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if "state_dict" not in contents:
        return dict(contents)
    prefix = "model."  # of AdderClassifier, whose own tensors are the data set's and are not saved
    return {name.removeprefix(prefix): tensor for name, tensor in contents["state_dict"].items()}


_READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": load_file,
    ".pt": _read_torch,
    ".ckpt": _read_torch,
}


def initial_weights(path: str | Path | None, checkpoint: Path | None) -> InitialWeights | None:
    """The weights of `fit --init-from`, or the record of those from which a resumed run once started. Every
    rank has to call it.

    Args:
        checkpoint: the checkpoint from which the run resumes, if it does.

    Raises:
        CheckpointError: there are no weights at `path`.
        UsageError: the run that resumes was started from other weights.
    """
    given = None if path is None else on_first_rank(lambda: _read(Path(path), is_needed=checkpoint is None))
    if checkpoint is None:
        if given is None or path is None:
            return None
        return InitialWeights(given.source, read_weights(Path(path)), given.sha256)
    record = read_manifest(checkpoint).get(_RECORD)
    if given is not None and (record is None or record["sha256"] != given.sha256):
        raise UsageError(
            f"{checkpoint}: expected a run that started from {path}, got one that started from "
            f"{record['from'] if record else 'new weights'}; choose another --out, or leave --init-from out"
        )
    return None if record is None else InitialWeights(record["from"], {}, record["sha256"])


def _read(path: Path, *, is_needed: bool) -> InitialWeights | None:
    """Source and fingerprint; every rank reads the tensors itself."""
    try:
        return InitialWeights(str(path), {}, weights_sha256(read_weights(path)))
    except CheckpointError:
        if is_needed:
            raise
        return None  # a run that resumes does not need them


def load_weights(
    model: nn.Module, tensors: Mapping[str, Tensor], *, source: str, num_classes: int | None = None
) -> list[str]:
    """Loads a network's tensors in place and returns the names of those that stay new.

    Args:
        source: their source, for messages.
        num_classes: of `model`; tensors of the last layer, which differ only in the number of classes, keep
            their new values. None does not allow this.

    Raises:
        CheckpointError: the tensors are of another network.
    """
    own = model.state_dict()
    other = [name for name in own if name in tensors and own[name].shape != tensors[name].shape]
    new = [name for name in other if _differs_in_classes(own[name], tensors[name], num_classes)]
    classes = {tensors[name].shape[0] for name in new}
    wrong = [*(set(own) ^ set(tensors)), *(name for name in other if name not in new)]
    if wrong or len(classes) > 1:
        name = min(wrong or new)
        ours, theirs = (
            str(tuple(state[name].shape)) if name in state else "none" for state in (own, tensors)
        )
        raise CheckpointError(
            f"{source}: expected {ours} for {name}, got {theirs}; choose weights of the same network"
        )
    model.load_state_dict({**tensors, **{name: own[name] for name in new}})
    return new


def _differs_in_classes(ours: Tensor, theirs: Tensor, num_classes: int | None) -> bool:
    if ours.dim() == 0 or theirs.dim() == 0:
        return False
    return ours.shape[0] == num_classes and ours.shape[1:] == theirs.shape[1:]
