"""Runs a command as a user would, from the checkout's root or a copy of it."""

import os
import subprocess
from pathlib import Path

from tests.source_tree import ROOT


def run_command(
    *command: str,
    timeout_s: float = 150.0,
    standard_input: str | None = None,
    cwd: Path = ROOT,
    **changes: str,
) -> subprocess.CompletedProcess[str]:
    """What the command printed and its exit code; `changes` are added to the environment."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | changes
    return subprocess.run(
        command,
        input=standard_input,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
