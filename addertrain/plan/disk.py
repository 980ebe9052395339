"""Whether a disk has room for what a run writes."""

import shutil
from pathlib import Path


def free_bytes(path: Path) -> int:
    """Room on the disk that will hold `path`, of which some parent exists."""
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free
