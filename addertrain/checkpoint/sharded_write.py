"""A checkpoint that several processes write at the same time, each with its own pieces of tensors.

    optimizer.part_0003.safetensors   flat pieces of process 3, as "NAME@OFFSET"
    part_0003.json                    while it is written: says that the files are flushed, or what went wrong

They share only a folder: no process waits for another except the first, whose writer thread waits for all
files and puts their checksums into the manifest. Readers see unsharded tensors.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from addertrain.checkpoint.tensor_file import write_tensors
from addertrain.durable import write_text
from addertrain.errors import CheckpointError

_POLL_SECONDS = 0.02
_STILL_SECONDS = 60.0  # without a byte more, a process that has not finished is taken for lost
_HURRIED_SECONDS = 3.0  # the same where a run ends by an error, most likely for a process that is gone


def write_part(folder: Path, process: int, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Writes one process's files, then its record; a failure is reported to the first process in the
    record.
    """
    record: dict[str, Any] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)  # the first process may be later
        record["files"] = {
            f"{name}.safetensors": write_tensors(folder / f"{name}.safetensors", contents)
            for name, contents in tensors.items()
        }
    except OSError as error:
        record = {"error": str(error)}
    try:
        write_text(_record(folder, process), json.dumps(record))
    except OSError:
        return  # the first process notices that nothing comes


@dataclass(frozen=True)
class OtherParts:
    """The files that processes 1 to `count - 1` write into `folder`, as the first process waits for them."""

    folder: Path
    count: int
    is_in_a_hurry: Callable[[], bool] = lambda: False

    def collect(self) -> dict[str, Any]:
        """Size and checksum of every file, once all are flushed; removes the records.

        Raises:
            OSError: a process could not write, or has written nothing for a minute (for seconds when the run
                has to end).
        """
        files: dict[str, Any] = {}
        for process in range(1, self.count):
            record = self._wait_for(process)
            if "error" in record:
                raise OSError(f"rank {process}: {record['error']}")
            files |= record["files"]
            _record(self.folder, process).unlink()
        return files

    def _wait_for(self, process: int) -> dict[str, Any]:
        path = _record(self.folder, process)
        last, since = -1, time.monotonic()
        while not path.exists():
            if (now := _bytes_in(self.folder)) != last:
                last, since = now, time.monotonic()
            still = time.monotonic() - since
            if still > (_HURRIED_SECONDS if self.is_in_a_hurry() else _STILL_SECONDS):
                raise OSError(f"rank {process} has written nothing for {still:.0f} s")
            time.sleep(_POLL_SECONDS)
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record


def assembled(
    parts: Iterable[Mapping[str, Tensor]], shapes: Mapping[str, list[int]], *, where: str
) -> dict[str, Tensor]:
    """The unsharded tensors from the pieces of all processes.

    Raises:
        CheckpointError: elements are missing or occur twice.
    """
    whole: dict[str, Tensor] = {}
    num_found = dict.fromkeys(shapes, 0)
    for part in parts:
        for key, values in part.items():
            name, _, offset = key.rpartition("@")
            if name not in whole:
                whole[name] = torch.empty(torch.Size(shapes[name]).numel(), dtype=values.dtype)
            whole[name][int(offset) : int(offset) + values.numel()] = values
            num_found[name] += values.numel()
    for name, shape in shapes.items():
        if num_found[name] != torch.Size(shape).numel():
            raise CheckpointError(
                f"{where}: expected {torch.Size(shape).numel()} elements of {name}, got {num_found[name]}"
            )
    return {name: whole[name].view(shape) for name, shape in shapes.items() if name in whole}


def _record(folder: Path, process: int) -> Path:
    return folder / f"part_{process:04d}.json"


def _bytes_in(folder: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in os.scandir(folder))
    except FileNotFoundError:  # a file that got its final name meanwhile
        return 0
