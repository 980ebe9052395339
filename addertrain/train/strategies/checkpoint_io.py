"""Saves and loads the state of a training: tensors in files of their own, everything else as JSON.

The state is a dictionary with the keys below, independent of any trainer: `lightning_checkpoint` makes it. No
pickle is written or read. A value that is neither a tensor in a known place nor plain JSON is refused with
its path.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor

from addertrain.checkpoint.background import BackgroundWriter
from addertrain.checkpoint.contents import POSITION_KEYS
from addertrain.checkpoint.files import (
    has_tensors,
    read_tensors,
    verify_checkpoint,
    write_checkpoint,
)
from addertrain.checkpoint.part_names import part_name
from addertrain.checkpoint.sharded_write import OtherParts, write_part
from addertrain.checkpoint.snapshot import snapshot
from addertrain.errors import CheckpointError
from addertrain.train.strategies.plain_values import from_plain, to_plain

MODEL, OPTIMIZER, RANK_BUFFERS, AVERAGE = "model", "optimizer", "rank_buffers", "average"
"""Tensors by name: of the network, of momentum, of every rank's own buffers, averaged (if there are any)."""
POSITION, STATE, FOREIGN = "position", "state", "foreign"
"""Plain values: the position of training, the state to resume from it, and that of your own callbacks."""
COMPANIONS = "companions."
"""The prefix of auxiliary modules, which are trained with the model: a teacher, and others for training
only.
"""


@dataclass(frozen=True)
class Pieces:
    """One rank's pieces of a checkpoint: for each file, flat pieces of tensors by `piece_name`.

    Attributes:
        folder: the folder to which all ranks write.
        shapes: those of the unsharded tensors, for each file.
    """

    folder: Path
    rank: int
    count: int
    values: dict[str, dict[str, Tensor]]
    shapes: dict[str, dict[str, torch.Size]]


class DirectoryCheckpointIO(CheckpointIO):
    """Writes and reads checkpoint directories; `about` (recipe, seed, versions) goes into every manifest.

    What is saved is a dictionary: MODEL and AVERAGE map names to tensors, RANK_BUFFERS lists such mappings by
    rank, OPTIMIZER is an optimizer's state by parameter name or None, POSITION, STATE and FOREIGN are plain.
    """

    def __init__(self, about: Mapping[str, Any] | None = None) -> None:
        self.about = dict(about or {})

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Writes `checkpoint` as the directory `path`; `checkpoint` does not change.

        Args:
            storage_options: a `BackgroundWriter` that writes the current values later and keeps its errors;
                with None everything is on disk when this returns.

        Raises:
            CheckpointError: the disk is full or the folder is missing; no incomplete checkpoint is left.
            TypeError: some value is neither a tensor in a known place nor plain JSON.
        """
        tensors, manifest = self._contents(checkpoint)
        _write_when(storage_options, tensors, lambda copies: _write(Path(path), copies, manifest))

    def save_pieces(
        self, checkpoint: dict[str, Any], path: str | Path, pieces: Pieces, storage_options: object = None
    ) -> None:
        """As `save_checkpoint`, if every rank has pieces of tensors; every rank has to call it.

        The first rank writes the contents of `checkpoint`.
        """
        own = {part_name(name, pieces.rank): values for name, values in pieces.values.items()}
        if pieces.rank > 0:
            _write_when(storage_options, own, lambda copies: write_part(pieces.folder, pieces.rank, copies))
            return
        tensors, manifest = self._contents(checkpoint)
        shapes = {file: {name: list(shape) for name, shape in s.items()} for file, s in pieces.shapes.items()}
        writer = storage_options if isinstance(storage_options, BackgroundWriter) else None
        others = OtherParts(pieces.folder, pieces.count, lambda: writer is not None and writer.is_in_a_hurry)
        _write_when(
            storage_options,
            tensors | own,
            lambda copies: _write(Path(path), copies, {**manifest, "parts": shapes}, others),
        )

    def _contents(
        self, checkpoint: Mapping[str, Any]
    ) -> tuple[dict[str, Mapping[str, Tensor]], dict[str, Any]]:
        """Each file's tensors, and the manifest."""
        model = checkpoint[MODEL]
        momentum, optimizer = split_optimizer(checkpoint[OPTIMIZER])
        manifest = {
            "format": "addertrain checkpoint",
            **checkpoint[POSITION],
            **self.about,
            OPTIMIZER: optimizer,
            STATE: checkpoint[STATE],
            **({FOREIGN: to_plain(foreign)} if (foreign := checkpoint[FOREIGN]) else {}),
        }
        check_plain(manifest, "checkpoint")
        manifest = copy.deepcopy(manifest)  # it may be written later
        beside = {name: value for name, value in model.items() if name.startswith(COMPANIONS)}
        tensors: dict[str, Mapping[str, Tensor]] = {
            "model": {name: value for name, value in model.items() if name not in beside},
            "optimizer": momentum,
            "rank_buffers": {
                f"{rank}/{name}": value
                for rank, own in enumerate(checkpoint[RANK_BUFFERS])
                for name, value in own.items()
            },
        }
        if AVERAGE in checkpoint:
            tensors[AVERAGE] = checkpoint[AVERAGE]
        if beside:
            tensors["companions"] = beside
        return tensors, manifest

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: object = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Verifies the directory `path`, then returns the dictionary that was saved, tensors on the CPU.

        Raises:
            CheckpointError: it is damaged, and nothing was interpreted.
        """
        path = Path(path)
        manifest = verify_checkpoint(path)
        rank_buffers: list[dict[str, Tensor]] = []
        for key, value in read_tensors(path, "rank_buffers").items():
            rank, _, name = key.partition("/")
            rank_buffers += [{} for _ in range(len(rank_buffers), int(rank) + 1)]
            rank_buffers[int(rank)][name] = value
        average = {AVERAGE: read_tensors(path, AVERAGE)} if has_tensors(manifest, AVERAGE) else {}
        beside = read_tensors(path, "companions") if has_tensors(manifest, "companions") else {}
        return {
            **average,
            MODEL: read_tensors(path, "model") | beside,
            OPTIMIZER: join_optimizer(read_tensors(path, "optimizer"), manifest["optimizer"]),
            RANK_BUFFERS: rank_buffers,
            POSITION: {key: manifest[key] for key in POSITION_KEYS if key in manifest},
            STATE: manifest["state"],
            FOREIGN: from_plain(manifest.get("foreign", {})),
        }

    def remove_checkpoint(self, path: str | Path) -> None:
        """Does nothing, because only `CheckpointStore` removes checkpoints."""


def _write_when(
    storage_options: object,
    tensors: Mapping[str, Mapping[str, Tensor]],
    write: Callable[[Mapping[str, Mapping[str, Tensor]]], None],
) -> None:
    """Writes now, or lets a `BackgroundWriter` write the current values later."""
    if not isinstance(storage_options, BackgroundWriter):
        write(tensors)
        return
    copies, wait = snapshot(tensors)

    def later() -> None:
        wait()
        write(copies)

    storage_options.add(later)


def _write(
    path: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    manifest: Mapping[str, Any],
    others: OtherParts | None = None,
) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # it may have been removed
        write_checkpoint(path, tensors, manifest, others)
    except OSError as error:
        raise CheckpointError(
            f"{path}: expected to write a checkpoint, got: {error}; the earlier checkpoints are intact"
        ) from None


def split_optimizer(named: Mapping[str, Any] | None) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The optimizer's tensors as "PARAMETER.KEY", and the rest of its state as plain values."""
    if named is None:
        return {}, None
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for name, values in named["state"].items():
        assert isinstance(name, str), "the strategy names the optimizer's state by parameter"
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{name}.{key}"] = value
            else:
                plain.setdefault(name, {})[key] = value
    return tensors, {"state": plain, "param_groups": named["param_groups"]}


def join_optimizer(tensors: Mapping[str, Tensor], plain: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The inverse of `split_optimizer`."""
    if plain is None:
        return None
    state: dict[str, dict[str, Any]] = {name: dict(values) for name, values in plain["state"].items()}
    for full_name, value in tensors.items():
        name, _, key = full_name.rpartition(".")
        state.setdefault(name, {})[key] = value
    return {"state": state, "param_groups": plain["param_groups"]}


def check_plain(value: object, where: str) -> None:
    """Raises a TypeError with the place if `value` is not plain JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_plain(item, f"{where}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(
                    f"{where}: expected a string as a key, got {key!r}; checkpoints hold plain JSON"
                )
            check_plain(item, f"{where}.{key}")
    else:
        kind = (
            f"a tensor of shape {tuple(value.shape)}"
            if isinstance(value, torch.Tensor)
            else type(value).__name__
        )
        raise TypeError(f"{where}: expected numbers, text, lists or dictionaries, got {kind}")
