"""Lightning's checkpoint dictionary to and from files: tensors apart, everything else as plain JSON.

No pickle is written or read. What is neither a tensor in one of the known places nor plain JSON is refused
by its path.
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
from addertrain.checkpoint.files import (
    has_tensors,
    read_tensors,
    verify_checkpoint,
    write_checkpoint,
)
from addertrain.checkpoint.sharded_write import OtherParts, part_name, write_part
from addertrain.checkpoint.snapshot import snapshot
from addertrain.errors import CheckpointError
from addertrain.train.strategies.plain_values import from_plain, to_plain

MODEL, OPTIMIZERS, RANK_BUFFERS, POSITION = "state_dict", "optimizer_states", "rank_buffers", "position"
AVERAGE = "average"
CALLBACKS = "callbacks"
MOMENTUM = "momentum_buffer"
COMPANIONS = "companions."
"""How names of modules begin that train beside the model: a teacher, and what only training needs."""


@dataclass(frozen=True)
class Pieces:
    """One rank's share of a checkpoint: for each file, flat pieces of tensors by `piece_name`.

    Attributes:
        folder: where all ranks write.
        shapes: of the whole tensors, for each file.
    """

    folder: Path
    rank: int
    count: int
    values: dict[str, dict[str, Tensor]]
    shapes: dict[str, dict[str, torch.Size]]


class DirectoryCheckpointIO(CheckpointIO):
    """Writes and reads checkpoint directories; `about` (recipe, seed, versions) goes into every manifest.

    The optimizer's state has to be keyed by parameter name, which the strategies of this folder see to.
    """

    def __init__(self, about: Mapping[str, Any] | None = None) -> None:
        self.about = dict(about or {})

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Writes `checkpoint` as the directory `path`; what the caller holds stays as it is.

        Args:
            storage_options: a `BackgroundWriter` writes what the tensors hold now, later, and keeps the
                errors of that; None: all is on the disk when this returns.

        Raises:
            CheckpointError: the disk is full, the folder is gone; no half checkpoint is left.
            TypeError: some value is neither a tensor in a known place nor plain JSON.
        """
        tensors, manifest = self._contents(checkpoint)
        _write_when(storage_options, tensors, lambda copies: _write(Path(path), copies, manifest))

    def save_pieces(
        self, checkpoint: dict[str, Any], path: str | Path, pieces: Pieces, storage_options: object = None
    ) -> None:
        """As `save_checkpoint`, where every rank has pieces of tensors; every rank calls it.

        What `checkpoint` holds is the first rank's to write.
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
        state = dict(checkpoint)
        model = state.pop(MODEL)
        momentum, optimizer = split_optimizer(state.pop(OPTIMIZERS, []))
        rank_buffers = state.pop(RANK_BUFFERS, [])
        average = state.pop(AVERAGE, None)
        if CALLBACKS in state:
            state[CALLBACKS] = to_plain(state[CALLBACKS])
        manifest = {
            "format": "addertrain checkpoint",
            **state.pop(
                POSITION, {"epoch": state["epoch"], "batches": 0, "global_step": state["global_step"]}
            ),
            **self.about,
            "optimizer": optimizer,
            "state": state,
        }
        check_plain(manifest, "checkpoint")
        manifest = copy.deepcopy(manifest)  # it may be written later
        beside = {name: value for name, value in model.items() if name.startswith(COMPANIONS)}
        tensors: dict[str, Mapping[str, Tensor]] = {
            "model": {name: value for name, value in model.items() if name not in beside},
            "optimizer": momentum,
            "rank_buffers": {
                f"{rank}/{name}": value
                for rank, own in enumerate(rank_buffers)
                for name, value in own.items()
            },
        }
        if average is not None:
            tensors[AVERAGE] = average
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
            CheckpointError: it is damaged; nothing has been interpreted then.
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
        state = manifest["state"]
        callbacks = {CALLBACKS: from_plain(state[CALLBACKS])} if CALLBACKS in state else {}
        return {
            **state,
            **callbacks,
            **average,
            MODEL: read_tensors(path, "model") | beside,
            OPTIMIZERS: join_optimizer(read_tensors(path, "optimizer"), manifest["optimizer"]),
            RANK_BUFFERS: rank_buffers,
        }

    def remove_checkpoint(self, path: str | Path) -> None:
        """Keeps what is there: `CheckpointStore` alone decides what may go."""


def _write_when(
    storage_options: object,
    tensors: Mapping[str, Mapping[str, Tensor]],
    write: Callable[[Mapping[str, Mapping[str, Tensor]]], None],
) -> None:
    """Writes now, or has a `BackgroundWriter` write what the tensors hold now."""
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
        path.parent.mkdir(parents=True, exist_ok=True)  # somebody may have removed it
        write_checkpoint(path, tensors, manifest, others)
    except OSError as error:
        raise CheckpointError(
            f"{path}: expected to write a checkpoint, got: {error}; the ones before it are whole"
        ) from None


def split_optimizer(states: list[dict[str, Any]]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The optimizer's tensors as "PARAMETER.KEY", and what is left of its state as plain values."""
    if not states:
        return {}, []
    if len(states) > 1:
        raise ValueError(f"checkpoint: expected one optimizer, got {len(states)}; train with one")
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for name, values in states[0]["state"].items():
        assert isinstance(name, str), "the strategy names the optimizer's state by parameter"
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{name}.{key}"] = value
            else:
                plain.setdefault(name, {})[key] = value
    return tensors, [{"state": plain, "param_groups": states[0]["param_groups"]}]


def join_optimizer(tensors: Mapping[str, Tensor], plain: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The inverse of `split_optimizer`."""
    if not plain:
        return []
    state: dict[str, dict[str, Any]] = {name: dict(values) for name, values in plain[0]["state"].items()}
    for full_name, value in tensors.items():
        name, _, key = full_name.rpartition(".")
        state.setdefault(name, {})[key] = value
    return [{"state": state, "param_groups": plain[0]["param_groups"]}]


def check_plain(value: object, where: str) -> None:
    """Raises TypeError, naming the place, where `value` is not plain JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_plain(item, f"{where}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where}: expected text as a key, got {key!r}; checkpoints hold plain JSON")
            check_plain(item, f"{where}.{key}")
    else:
        kind = (
            f"a tensor of shape {tuple(value.shape)}"
            if isinstance(value, torch.Tensor)
            else type(value).__name__
        )
        raise TypeError(f"{where}: expected numbers, text, lists or dictionaries, got {kind}")
