"""Tensors in a callback's state as plain JSON and back, bit for bit: a manifest holds no pickle.

Lightning's own callbacks have such tensors of one element; weights are stored in files of their own.
"""

import base64
from typing import Any

import torch
from torch import Tensor

_DTYPE, _SHAPE, _BYTES = "tensor", "shape", "base64"
_KEYS = {_DTYPE, _SHAPE, _BYTES}


def to_plain(value: Any) -> Any:
    """`value` with every tensor in its dictionaries and lists as its type, shape and bytes."""
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return {
            _DTYPE: str(value.dtype).removeprefix("torch."),
            _SHAPE: list(value.shape),
            _BYTES: base64.b64encode(data).decode("ascii"),
        }
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, list | tuple) else value


def from_plain(value: Any) -> Any:
    """The inverse of `to_plain`; tuples become lists."""
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != _KEYS:
        return {key: from_plain(item) for key, item in value.items()}
    data = bytearray(base64.b64decode(value[_BYTES]))
    dtype = getattr(torch, value[_DTYPE])
    return (
        torch.frombuffer(data, dtype=dtype).reshape(value[_SHAPE])
        if data
        else torch.empty(value[_SHAPE], dtype=dtype)
    )
