"""The environment for which a proof is valid: device, driver, versions, and the library's hash."""

import functools
import hashlib
from pathlib import Path
from typing import Any

import torch

import addertrain
from addertrain import compiled, libraries
from addertrain.processor import processor_name
from addertrain.proof.operators import library_of

_FORMAT = 1
"""Of the trials: a proof by others does not count."""


def environment_of(device: torch.device) -> dict[str, Any]:
    """Plain values; while they do not change, proofs stay valid."""
    return {
        "format": _FORMAT,
        "addertrain": addertrain.__version__,
        "torch": str(torch.__version__),
        "library": _sha256(compiled.find(library_of(device.type))),
        **(_gpu(device) if device.type == "cuda" else _processor()),
    }


def _gpu(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "driver": _first_line(Path("/proc/driver/nvidia/version")),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _processor() -> dict[str, Any]:
    return {
        "device": processor_name(),
        "kernels": libraries.cpu_kernels(),
        "torch_kernels": torch.backends.cpu.get_cpu_capability(),
    }


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return ""


@functools.lru_cache
def _sha256(path: Path | None) -> str:
    return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
