"""What this process and its children use: processor time and memory, as the kernel counts them."""

import os
from pathlib import Path


def processor_seconds() -> float:
    """Of this process, all its threads, and the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def anonymous_megabytes() -> float:
    """Memory of this process and its living children that belongs to no file."""
    return sum(map(_anonymous_kilobytes, [os.getpid(), *_children(os.getpid())])) / 1024


def _children(pid: int) -> list[int]:
    listed = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for children in listed for child in children]


def _anonymous_kilobytes(pid: int) -> int:
    """What a process shares with others counts in proportion, so that a family adds up."""
    try:
        counts = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has ended meanwhile
        return 0
    lines = [line.split() for line in counts.splitlines() if line.startswith("Pss_Anon:")]
    return int(lines[0][1]) if lines else 0
