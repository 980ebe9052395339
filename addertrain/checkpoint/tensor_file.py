"""Writes tensors by name to a safetensors file, and hashes them in the same pass.

The format is 8 bytes with the header's length, a header in JSON, and the tensors' bytes one after the other.
Checksums are computed from the tensors, not from what is read back. Nothing is copied, and Python's lock is
almost never held, so that a training thread can continue.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_CHUNK_BYTES = 1 << 22
_NAMES: dict[torch.dtype, str] = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, int | str]:
    """Writes and flushes `path`; tensors may be on any device, share memory, and be views of others.

    Returns its size in bytes and its SHA-256, as manifests hold them.

    Raises:
        TypeError: a data type that safetensors does not support.
        OSError: the disk is full, ...
    """
    # Wide types first, so that every tensor starts at a multiple of its item's size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header = _header({name: tensors[name] for name in names})
    digest, num_bytes = hashlib.sha256(header), len(header)
    with path.open("wb") as file:
        file.write(header)
        for name in names:
            contents = _bytes_of(tensors[name])
            for start in range(0, len(contents), _CHUNK_BYTES):
                chunk = contents[start : start + _CHUNK_BYTES]
                digest.update(chunk)
                file.write(chunk)
            num_bytes += len(contents)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": num_bytes, "sha256": digest.hexdigest()}


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    entries, start = {}, 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise TypeError(
                f"{name}: expected a data type that safetensors supports, got {tensor.dtype}; convert it"
            )
        end = start + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: Tensor) -> memoryview:
    """The tensor's elements in logical order; the same memory if it is contiguous on the host."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
