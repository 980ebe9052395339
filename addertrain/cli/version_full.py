"""The lines of `addertrain --version --full`: everything that a bug report should contain.

Every package is imported as the commands import it, because an installed package may still fail to load.
"""

import importlib
import os
import platform
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

import torch

from addertrain import libraries
from addertrain.cli.version import line
from addertrain.data.beton.reader import ffcv_library
from addertrain.data.decoding.jpeg import has_turbojpeg
from addertrain.processor import processor_family, processor_name
from addertrain.train.session import source_commit
from addertrain.train.strategies.zero import import_deepspeed

_Load = Callable[[], object]


def lines() -> list[str]:
    """The versions in use, the machine, and each package with its version or why it does not load."""
    rows = {
        "commit": source_commit() or "none: not a checkout",
        "Python": f"{platform.python_version()}, {platform.platform()}",
        "CPU": _processor(),
        "torch": _torch(),
        "GPU": "; ".join(_gpus()) or "none that torch sees",
        **{name: _package(name, load) for name, load in _packages().items()},
        "libturbojpeg": "loaded" if has_turbojpeg() else "not loaded (no libturbojpeg.so.0 on this machine)",
    }
    width = max(map(len, rows))
    first = line(torch.__version__, libraries.status(), libraries.cpu_kernels())
    return [first, *(f"{name:<{width}}  {what}" for name, what in rows.items())]


def _packages() -> dict[str, _Load]:
    """How the commands load each package except torch, by the name of its distribution."""
    modules = {
        **{name: name for name in ("lightning", "torchvision", "jsonargparse", "numpy", "safetensors")},
        "pillow": "PIL",
        "PyYAML": "yaml",
        "scikit-learn": "sklearn",
        "tensorboard": "tensorboard",
        **{name: name for name in ("matplotlib", "numba", "onnx", "onnxruntime")},
    }
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        **{name: partial(importlib.import_module, module) for name, module in modules.items()},
        "deepspeed": partial(import_deepspeed, device_type),
        "ffcv": ffcv_library,
    }


def _package(name: str, load: _Load) -> str:
    """The version of a package, and the error if it does not load."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
    try:
        load()
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        return f"{version}, does not load ({type(error).__name__}: {reason:.300})"
    return version


def _processor() -> str:
    """Name, family and number of cores of the processor, as Linux reports them."""
    cores = f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"
    return ", ".join(filter(None, [processor_name(), processor_family(), cores]))


def _torch() -> str:
    parts = [torch.__version__, f"git {torch.version.git_version or 'unknown'}"]
    if torch.version.cuda:
        parts += [f"CUDA {torch.version.cuda}", f"cuDNN {torch.backends.cudnn.version()}"]
    parts += [f"{torch.backends.cpu.get_cpu_capability()} kernels", f"{torch.get_num_threads()} threads"]
    return ", ".join(parts)


def _gpus() -> Iterator[str]:
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        memory = f"{found.total_memory / 2**30:.1f} GiB"
        yield f"{found.name}, compute capability {found.major}.{found.minor}, {memory}"
    if torch.cuda.is_available() and (driver := Path("/proc/driver/nvidia/version")).is_file():
        yield driver.read_text(encoding="utf-8").splitlines()[0]
