"""Writes small data sets in MNIST's file format."""

import struct
from pathlib import Path

import numpy as np


def write_mnist(root: Path, *, num_train: int = 40, num_test: int = 20) -> Path:
    """Random images and labels under root/MNIST/raw; returns that folder."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for prefix, count in (("train", num_train), ("t10k", num_test)):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", generator.integers(0, 256, (count, 28, 28)))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", generator.integers(0, 10, (count,)))
    return raw


def write_idx(path: Path, values: np.ndarray) -> None:
    """Unsigned bytes with the head that says so."""
    head = struct.pack(f">{values.ndim + 1}I", 0x0800 + values.ndim, *values.shape)
    path.write_bytes(head + values.astype(np.uint8).tobytes())
