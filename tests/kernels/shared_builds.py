"""Builds that all workers of a run share, and later runs too while sources and compilers stay the same."""

import fcntl
import hashlib
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch

from tests.source_tree import ROOT

_DAY_S = 24 * 3600.0


@contextmanager
def built_once(root: Path, name: str) -> Iterator[tuple[Path, bool]]:
    """A folder under `root` for the build `name`, and whether it is there already; others wait meanwhile.

    A build that fails is begun anew by the next one who asks.
    """
    folder = root / f"{name}-{_fingerprint()}"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        if not done.exists():
            _remove_old(root, name)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        yield folder, done.exists()
        done.touch()


def _remove_old(root: Path, name: str) -> None:
    for folder in root.glob(f"{name}-*"):
        if folder.stat().st_mtime < time.time() - _DAY_S:
            shutil.rmtree(folder)


@lru_cache(maxsize=1)
def _fingerprint() -> str:
    """Of the sources, of what compiles them, and of this machine, for which hosts' code is."""
    digest = hashlib.sha256(f"{platform.node()} {sys.executable} {torch.__version__}".encode())
    for compiler in ("c++", "nvcc", "aarch64-linux-gnu-g++"):
        if (path := shutil.which(compiler)) is not None:
            digest.update(subprocess.run([path, "--version"], capture_output=True, check=False).stdout)
    for folder in (ROOT / "kernels", ROOT / "tests" / "kernels"):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".md" and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]
