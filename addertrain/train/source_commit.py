"""Which sources a run was made with."""

import functools
import subprocess
from pathlib import Path

import addertrain


@functools.cache
def source_commit() -> str | None:
    """The commit of the checkout that this package runs from, "+changes" where it was changed; else None."""
    checkout = Path(addertrain.__file__).parent.parent
    if not (checkout / ".git").exists():  # installed; a repository further up is somebody else's
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--exclude=*"]
    try:
        said = subprocess.run(
            [*command, "--dirty=+changes"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None
